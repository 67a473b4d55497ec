"""Outputs of tests keep the folders of their images, whatever bytes the names have, and overwrite no input."""

import os
import shutil

import cv2
import numpy as np
import pytest

from rass_mm_cli.main import main

RESNET = 'baselines/resnet_scenes_tiny.py'
ODD = os.fsdecode(b'm\xfcnze')


@pytest.fixture(scope='module')
def nested(scenes, tmp_path_factory):
    """Four validation scenes in two folders; two have the same name, and one has a name that is not UTF-8."""
    root = tmp_path_factory.mktemp('nested') / 'data'
    files = sorted((scenes / 'img_lq' / 'val').glob('*.png'))
    for source, name in zip(files, ('berlin/a', 'paris/a', f'paris/{ODD}', 'paris/c'), strict=True):
        for folder in ('img_lq', 'ann_dir'):
            target = root / folder / 'val' / f'{name}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(scenes / folder / 'val' / source.name, target)
    (root / 'img_dir').symlink_to(scenes / 'img_dir')
    return root


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory):
    work = tmp_path_factory.mktemp('resnet')
    data = [f'{name}_dataloader.dataset.data_root={scenes}' for name in ('train', 'val', 'test')]
    more = ['train_cfg.max_iters=1', 'train_cfg.val_interval=9', 'train_dataloader.batch_size=2', 'param_scheduler=[]']
    assert main(['train', RESNET, '--work-dir', str(work), '--cfg-options', *data, *more, 'visualizer.name=names']) == 0
    return work / 'iter_1.pth'


def run_test(nested, trained, work, *options):
    data = f'test_dataloader.dataset.data_root={nested}'
    arguments = [*('test', RESNET, str(trained), '--work-dir', str(work)), *map(str, options)]
    return main([*arguments, '--cfg-options', data, f'visualizer.name={work.name}'])


def test_label_maps_and_pictures_keep_folders_and_names(nested, trained, tmp_path):
    out, show = tmp_path / 'out', tmp_path / 'show'
    assert run_test(nested, trained, tmp_path / 'work', '--out', out, '--show-dir', show) == 0
    expected = ['berlin/a.png', 'paris/a.png', 'paris/c.png', f'paris/{ODD}.png']
    for folder in (out, show):
        found = sorted(file.relative_to(folder).as_posix() for file in folder.rglob('*') if file.is_file())
        assert found == sorted(expected)
    for name in expected:
        with open(out / name, 'rb') as file:
            labels = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (96, 96) and labels.dtype == np.uint8 and labels.max() < 12
        with open(show / name, 'rb') as file:
            assert cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR).shape[2] == 3


def test_outputs_over_inputs_are_an_error_before_anything_is_written(nested, trained, tmp_path, capsys):
    before = (nested / 'ann_dir' / 'val' / 'berlin' / 'a.png').read_bytes()
    assert run_test(nested, trained, tmp_path / 'work', '--out', nested / 'ann_dir' / 'val') == 1
    message = ' '.join(capsys.readouterr().err.split())
    assert '--out would overwrite the input' in message
    assert (nested / 'ann_dir' / 'val' / 'berlin' / 'a.png').read_bytes() == before


@pytest.mark.parametrize('size', [(1, 7), (7, 1), (1, 1)])
def test_images_of_one_pixel_train(scenes, tmp_path, size):
    root = tmp_path / 'data'
    shutil.copytree(scenes, root)
    for file in (root / 'img_dir' / 'train').glob('*.png'):
        cv2.imwrite(str(file), np.full((*size, 3), 90, np.uint8))
        cv2.imwrite(str(root / 'ann_dir' / 'train' / file.name), np.full(size, 3, np.uint8))
    data = [f'{name}_dataloader.dataset.data_root={root}' for name in ('train', 'val', 'test')]
    more = ['train_cfg.max_iters=1', 'train_cfg.val_interval=9', 'train_dataloader.batch_size=2', 'param_scheduler=[]']
    name = f'visualizer.name=pixel{size[0]}{size[1]}'
    assert main(['train', RESNET, '--work-dir', str(tmp_path / 'w'), '--cfg-options', *data, *more, name]) == 0
