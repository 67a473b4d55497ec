"""Records of tests: command, protocol, versions and device."""

import sys

import pytest
from mmengine.config import ConfigDict

from rass_mm.config import load_config
from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.degradation.recipe import OSEDIFF, override
from rass_mm.engine.placement import device_name
from rass_mm.engine.records import command_line
from rass_mm.protocol import copy_version, protocol_line, recipe_versions, with_rule


@pytest.mark.parametrize(
    ('argv', 'typed'),
    [
        (['tools/test.py', 'a.py', 'b.pth'], 'python tools/test.py a.py b.pth'),
        (['/usr/local/bin/rass-mm', 'test', 'a.py'], 'rass-mm test a.py'),
        (['/somewhere/rass_mm/__main__.py', 'test', 'a.py'], 'python -m rass_mm test a.py'),
        (
            ['tools/test.py', 'a.py', "x=['PSNR']", 'my file'],
            """python tools/test.py a.py 'x=['"'"'PSNR'"'"']' 'my file'""",
        ),
    ],
)
def test_command_can_be_typed_again(argv, typed, monkeypatch):
    monkeypatch.setattr(sys, 'argv', argv)
    assert command_line() == typed


def test_command_of_several_processes_starts_them(monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/test.py', 'a.py', 'b.pth', '--launcher', 'pytorch'])
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    expected = 'python -m torch.distributed.run --nproc_per_node 2 tools/test.py a.py b.pth --launcher pytorch'
    assert command_line() == expected


def config(evaluator, kind='ScenesDataset', **prefixes):
    dataset = {'type': kind, 'data_root': '/data/scenes', 'data_prefix': prefixes}
    return ConfigDict(test_dataloader={'dataset': dataset}, test_evaluator={'type': evaluator})


def test_protocol_names_the_degraded_copy(scenes):
    degraded = config('IoUMetric', img_path='img_lq/val')
    degraded.test_dataloader.dataset.data_root = str(scenes)
    line = protocol_line(degraded, 4)
    assert line.startswith('mIoU, aAcc and mAcc (%) over all pixels of 4 images of scenes/img_lq/val (ScenesDataset), ')
    assert (
        'degraded copy of seed 0 (recipe ' in line and ', version 2)' in line and line.endswith("at the labels' size")
    )
    clean = config('IoUMetric', img_path='img_dir/val')
    clean.test_dataloader.dataset.data_root = str(scenes)
    assert 'degraded' not in protocol_line(clean, 4)
    other = scenes.parent / 'other' / 'img_lq' / 'val'
    other.mkdir(parents=True)
    (other / 'manifest.jsonl').write_text('{"seed": 1, "fingerprint": "abcdefghij"}\n')
    degraded.test_dataloader.dataset.data_root = str(scenes.parent / 'other')
    assert 'degraded copy of seed 1 (recipe abcdefgh)' in protocol_line(degraded, 4)


def test_protocol_names_the_classes_in_the_mean():
    plain, published = config('IoUMetric', img_path='val'), config('MeanIoUMetric', img_path='val')
    published.test_evaluator.mean_over = 'present'
    line = protocol_line(plain, 4)
    assert ', mIoU over classes with labelled or predicted pixels, at' in line
    assert ', mIoU over classes with labelled pixels, at' in protocol_line(published, 4)
    published.test_evaluator.mean_over = 'all'
    assert protocol_line(published, 4) == line


def test_an_older_protocol_line_has_mmsegs_rule():
    line = protocol_line(config('IoUMetric', img_path='val'), 4)
    older = line.replace(', mIoU over classes with labelled or predicted pixels,', '')
    assert older != line and with_rule(older) == with_rule(line) == line
    assert with_rule('Image quality, mean over 20 images') == 'Image quality, mean over 20 images'


def test_protocol_of_version_1_is_the_line_recorded_without_a_version(scenes, tmp_path):
    folder = tmp_path / 'scenes' / 'img_lq' / 'val'
    build_lq_dataset(scenes / 'img_dir' / 'val', folder, recipe=override(OSEDIFF, {'version': 1}))
    degraded = config('IoUMetric', img_path='img_lq/val')
    degraded.test_dataloader.dataset.data_root = str(tmp_path / 'scenes')
    recorded = 'mIoU, aAcc and mAcc (%) over all pixels of 200 images of scenes/img_lq/val (ScenesDataset), '
    recorded += "degraded copy of seed 0 (recipe 2aa810d7) at the labels' size"
    assert protocol_line(degraded, 200) == with_rule(recorded)
    assert copy_version(folder) == 1 and copy_version(scenes / 'img_lq' / 'val') == 2


def test_versions_are_those_of_the_tested_copy_and_of_the_training_pipeline(scenes):
    shipped = load_config('baselines/resnet_scenes_tiny.py', {'test_dataloader.dataset.data_root': str(scenes)})
    assert recipe_versions(shipped) == {'tested': 2, 'train_pipeline': 2}
    shipped.test_dataloader.dataset.data_prefix.img_path = 'img_dir/val'
    steps = shipped.train_dataloader.dataset.pipeline
    next(step for step in steps if step.type == 'LQDegradation').recipe = {'version': 1}
    assert recipe_versions(shipped) == {'tested': None, 'train_pipeline': 1}
    shipped.train_dataloader.dataset.pipeline = [step for step in steps if step.type != 'LQDegradation']
    assert recipe_versions(shipped) == {'tested': None, 'train_pipeline': None}
    assert recipe_versions(config('IoUMetric', img_path='nowhere')) == {'tested': None, 'train_pipeline': None}


@pytest.mark.parametrize('damage', ['', 'no json', '[]', '{"seed": 0}'])
def test_foreign_manifest_is_no_degraded_copy(damage, tmp_path):
    (tmp_path / 'manifest.jsonl').write_text(damage)
    foreign = config('IoUMetric', img_path='.')
    foreign.test_dataloader.dataset.data_root = str(tmp_path)
    assert 'degraded' not in protocol_line(foreign, 1)


def test_pairs_have_one_protocol_whatever_is_compared():
    lines = {
        protocol_line(config('mmagic.RestorationMetrics', 'mmagic.BasicImageDataset', img=folder, gt='gt'), 20)
        for folder in ('lq', 'osediff')
    }
    assert lines == {
        'Image quality, mean over 20 images of scenes against gt; PSNR and SSIM on Y (BT.601), no border crop'
    }
    labelled = protocol_line(config('mmagic.RestorationMetrics', img_path='img_lq/val'), 4)
    assert 'of scenes/img_lq/val (ScenesDataset) against their clean ones; PSNR' in labelled


def test_device_is_named():
    assert device_name().startswith(('cpu (', 'cuda ('))
