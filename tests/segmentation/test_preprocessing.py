"""The official config's resize and padding against Pillow and NumPy."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from rass_mm.config import load_config

SIZES = [(512, 683), (360, 480), (128, 171), (1000, 750), (500, 2100)]
"""(height, width)."""


@pytest.fixture(scope='module')
def official():
    init_default_scope('mmseg')
    config = load_config('rass/rass_ade20k_lq_official.py')
    steps = [step for step in config.test_pipeline if step.type != 'LoadLabelStrict']
    return Compose(steps), MODELS.build(config.model.data_preprocessor)


def prepared(official, folder, image):
    """(resized image in RGB, batch) as the official config makes them."""
    pipeline, preprocessor = official
    Image.fromarray(image).save(folder / 'image.png')
    sample = pipeline({'img_path': str(folder / 'image.png'), 'reduce_zero_label': True, 'seg_fields': []})
    resized = sample['inputs'].numpy()[::-1].transpose(1, 2, 0)
    return resized, preprocessor({key: [value] for key, value in sample.items()}, training=False)


@pytest.mark.parametrize('size', SIZES)
def test_resize_is_pillows_and_padding_numpys(official, tmp_path, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    resized, batch = prepared(official, tmp_path, image)
    scale = min(512 / min(size), 2048 / max(size))
    width, height = (int(side * scale + 0.5) for side in size[::-1])
    expected = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resized, expected)
    raw = np.pad(expected, ((0, -height % 8), (0, -width % 8), (0, 0)))
    assert raw.shape[0] % 8 == raw.shape[1] % 8 == 0
    given = batch['inputs'][0].permute(1, 2, 0)
    torch.testing.assert_close(given, torch.from_numpy(raw) / 127.5 - 1, atol=1e-6, rtol=0)
    assert batch['data_samples'][0].img_padding_size == (0, -width % 8, 0, -height % 8)


def test_training_pads_as_before(official):
    image = torch.full((3, 40, 50), 200, dtype=torch.uint8)
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    sample = SegDataSample(gt_sem_seg=PixelData(data=torch.zeros(1, 40, 50, dtype=torch.long)))
    batch = official[1]({'inputs': [image], 'data_samples': [sample]}, training=True)
    assert batch['inputs'].shape == (1, 3, 512, 512) and (batch['inputs'][..., 40:, :] == 0).all()
