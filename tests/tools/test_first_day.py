"""A user's first day, from an empty directory with the wheel only."""

import sys

import cv2
import numpy as np
import pytest
from commands import python, run, tools
from PIL import Image

CLASSES = ('sky', 'field', 'road', 'house')
COLORS = np.array([(120, 180, 240), (60, 140, 50), (90, 90, 90), (170, 80, 60)], np.uint8)
CONFIG = """\
_base_ = ['{shipped}']
mine = dict(type='BaseSegDataset', data_root='data', metainfo=dict(classes={classes}))
split = dict(img_path='images', seg_map_path='labels')
train_dataloader = dict(dataset=dict(**mine, img_suffix='.jpg', seg_map_suffix='.png', data_prefix=split))
val_dataloader = dict(dataset=dict(**mine, img_suffix='.jpg', seg_map_suffix='.png', data_prefix=split))
test_dataloader = val_dataloader
model = dict(backbone=dict(base='base'))
"""
PREDICT = """
import json
import numpy as np
from mmseg.apis import MMSegInferencer, inference_model, init_model

config, checkpoint, *photos = {arguments!r}
model = init_model(config, checkpoint, device='cpu')
inferencer = MMSegInferencer(config, checkpoint, device='cpu')
import rass_mm

assert rass_mm.__file__.startswith({site!r}), rass_mm.__file__
segmentor = rass_mm.load_segmentor(checkpoint, device='cpu', deterministic=True)
doors = {{
    'inference_model': lambda photo: inference_model(model, photo).pred_sem_seg.data[0].numpy(),
    'inferencer': lambda photo: inferencer(photo, return_datasamples=True).pred_sem_seg.data[0].numpy(),
    'predict': lambda photo: segmentor.predict(photo).labels,
}}
for name, door in doors.items():
    np.savez(name + '.npz', **{{str(number): door(photo) for number, photo in enumerate(photos)}})
"""


def photo(rng, height, width):
    """Returns a photo with noise, and its label map: bands of sky, field and road, and some houses."""
    labels = np.repeat(np.sort(rng.integers(0, 3, height))[:, None], width, 1).astype(np.uint8)
    for _ in range(3):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        labels[top : top + 8, left : left + 8] = 3
    noise = rng.normal(0, 12, (height, width, 3))
    return (COLORS[labels] + noise).clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope='module')
def day(wheel_site, tmp_path_factory):
    """The directory after a training of four iterations, and the environment."""
    here, rng = tmp_path_factory.mktemp('first day'), np.random.default_rng(0)
    for folder in ('data/images', 'data/labels', 'photos/more'):
        (here / folder).mkdir(parents=True)
    for number in range(12):
        pixels, labels = photo(rng, 96, 112)
        Image.fromarray(pixels).save(here / 'data' / 'images' / f'{number:02}.jpg', quality=95)
        Image.fromarray(labels).save(here / 'data' / 'labels' / f'{number:02}.png')
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(photo(rng, 61, 90)[0]).save(here / 'photos' / 'turned.jpg', exif=turned, quality=95)
    Image.fromarray(photo(rng, 130, 333)[0]).save(here / 'photos' / 'wide.png')
    Image.fromarray(photo(rng, 75, 53)[0]).save(here / 'photos' / 'more' / 'odd.webp', lossless=True)
    Image.fromarray(photo(rng, 64, 64)[0]).convert('L').save(here / 'photos' / 'grey.png')
    environment = {'PYTHONPATH': str(wheel_site), 'PYTHONDONTWRITEBYTECODE': '1'}
    shipped = wheel_site / 'rass_mm' / 'configs' / 'rass' / 'rass_scenes_tiny.py'
    (here / 'base').symlink_to(wheel_site / 'rass_mm' / 'demo' / 'base' / 'weights' / 'scenes')
    (here / 'mine.py').write_text(CONFIG.format(shipped=shipped, classes=CLASSES))
    command = wheel_site / 'rass_mm_cli' / '__main__.py'
    short = ['--cfg-options', 'train_cfg.max_iters=4', 'train_cfg.val_interval=9']
    trained = tools(
        [command, 'check-data', 'mine.py', '--splits', 'train'],
        [command, 'train', 'mine.py', '--work-dir', 'work', *short],
        cwd=here,
        env=environment,
    )
    segment = ['segment', 'photos', 'out', '--checkpoint', 'work/iter_4.pth', '--device', 'cpu', '--deterministic']
    for done in (trained, run(sys.executable, '-m', 'rass_mm_cli', *segment, cwd=here, env=environment)):
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return here, environment


def test_the_config_has_ten_lines_at_most():
    assert len(CONFIG.splitlines()) <= 10


def test_four_doors_give_the_same_labels(day, wheel_site):
    here, environment = day
    photos = ['photos/turned.jpg', 'photos/wide.png', 'photos/more/odd.webp', 'photos/grey.png']
    code = PREDICT.format(arguments=['mine.py', 'work/iter_4.pth', *photos], site=str(wheel_site))
    done = python('-W', 'ignore', '-c', code, cwd=here, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    sizes = [(90, 61), (130, 333), (75, 53), (64, 64)]  # the first one upright
    for number, (path, size) in enumerate(zip(photos, sizes, strict=True)):
        relative = path.removeprefix('photos/').rpartition('.')[0]
        shell = cv2.imread(str(here / 'out' / 'labels' / f'{relative}.png'), cv2.IMREAD_UNCHANGED)
        ids = np.asarray(Image.open(here / 'out' / 'labels' / f'{relative}.png'))
        assert shell is not None and ids.shape == size and len(np.unique(ids)) >= 3
        for door in ('inference_model', 'inferencer', 'predict'):
            assert np.array_equal(np.load(here / f'{door}.npz')[str(number)], ids), (door, path)
