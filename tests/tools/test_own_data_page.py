"""docs/own_data.md from start to end: its commands and configs, on generated photos and the tiny base."""

import json
import re

import numpy as np
import pages
import pytest
import torch
from commands import ROOT
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

import rass_mm
from rass_mm.config import load_config
from rass_mm_cli.main import main

PAGE = ROOT / 'docs' / 'own_data.md'
TINY = {
    'rass/rass_ade20k_lq.py': 'rass/rass_scenes_tiny.py',
    'scr/scr_ade20k.py': 'scr/scr_scenes_tiny.py',
    '20000': '2',
}
TRAINED = 'work_dirs/rass_ade20k_lq/iter_160000.pth'
SHORT = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
SHORT += ['default_hooks.checkpoint.interval=2', 'param_scheduler=None']
SCRIPTS = {'tools/train.py': 'train', 'tools/test.py': 'test', 'tools/make_lq_dataset.py': 'make-lq'}


def photos(root):
    """Writes the layout of the page: JPEG photos, one of them turned by EXIF, and PNG label maps of ids 0 to 2, 255."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 4), ('val', 2)):
        for folder in ('img_dir', 'ann_dir'):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            label = np.kron(rng.integers(0, 3, (6, 8)), np.ones((16, 16), int)).astype(np.uint8)
            image = Image.fromarray(np.stack([60 + 60 * label + rng.integers(0, 20, label.shape, np.uint8)] * 3, -1))
            label[:2] = 255
            exif = Image.Exif()
            if index == 1:  # stored turned by a quarter, as phones do
                image = image.transpose(Image.Transpose.ROTATE_90)
                exif[0x0112] = 6
            image.save(root / 'img_dir' / split / f'{index}.jpg', exif=exif)
            Image.fromarray(label).save(root / 'ann_dir' / split / f'{index}.png')


def tiny(text):
    for full, small in TINY.items():
        text = text.replace(full, small)
    return text


def run(words):
    words = [tiny(word) for word in words]
    if words[0] == 'python':
        words = [SCRIPTS[words[1]], *words[2:]]
    elif words[0] == 'rass-mm':
        words = words[1:]
    if words[0] == 'train':
        words += [*([] if '--cfg-options' in words else ['--cfg-options']), *SHORT]
    assert main(words) == 0, words


@pytest.fixture
def place(tmp_path, tiny_base, monkeypatch):
    """An empty directory with the photos, the base and the configs of the page on the shipped tiny ones."""
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / 'data' / 'mine')
    (tmp_path / 'bases').mkdir()
    (tmp_path / 'bases' / 'scenes-tiny').symlink_to(tiny_base)
    for name, text in pages.named_files(PAGE).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(tiny(text).replace('../configs', str(rass_mm.config_path())))
    config = load_config('rass/rass_scenes_tiny.py')  # of 12 classes, to fine-tune from
    init_default_scope('mmseg')
    (tmp_path / TRAINED).parent.mkdir(parents=True)
    torch.save({'meta': {}, 'state_dict': MODELS.build(config.model).state_dict()}, tmp_path / TRAINED)
    return tmp_path


@pytest.mark.slow
def test_the_page_from_start_to_end(place):
    pytest.importorskip('mmagic')
    lines = [words for block in pages.blocks(PAGE, 'bash') for words in pages.command_lines(block.text)]
    assert {'make-lq', 'check-data'} <= {word for words in lines for word in words}
    for words in lines:
        run(words)
    (train, val, *_) = json.loads((place / 'found.json').read_text())['data']
    assert [row['name'] for row in train['classes']] == ['asphalt', 'car', 'person']
    assert train['images'] == 4 and val['images'] == 2 and train['problems'] == val['problems'] == 0
    assert len(list((place / 'label_maps').rglob('*.png'))) == 2
    (place / 'photos').mkdir()
    (place / 'data/mine/img_dir/val/1.jpg').rename(place / 'photo.jpg')
    (place / 'data/mine/img_dir/val/0.jpg').rename(place / 'photos/0.jpg')
    (block,) = [block for block in pages.blocks(PAGE, 'python') if 'MMSegInferencer' in block.text]
    names = {}
    exec(compile(tiny(block.text), 'page', 'exec'), names)  # noqa: S102  (the page's own lines)
    assert names['result'].seg_logits.data.shape == (3, 96, 128)
    assert (place / 'predictions' / 'vis' / '0.jpg').is_file()


@pytest.mark.parametrize('name', pages.named_files(PAGE))
def test_its_configs_have_ten_lines_at_most(name):
    text = pages.named_files(PAGE)[name]
    assert len([line for line in text.splitlines() if line and not line.startswith('#')]) <= 10
    assert len(re.findall('asphalt', text)) == 1
