"""Builds the tiny segmentors of the shipped configs on the random base."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rass_mm

NAMES = {
    'upernet': 'rass/rass_scenes_tiny.py',
    'mask2former': 'rass/rass_scenes_tiny_mask2former.py',
    'fcn': 'diffusion/fcn_diffusion-tiny_1xb8-170_scenes-96x96.py',
    'segformer': 'diffusion/segformer_diffusion-tiny_1xb8-170_scenes-96x96.py',
}


def tiny_config(base, name='upernet', **options):
    """The shipped config with the random base and `options` merged into the model."""
    config = Config.fromfile(str(rass_mm.config_path(NAMES[name])))
    config.merge_from_dict(
        {'model.backbone.base': str(base), **{f'model.{key}': value for key, value in options.items()}}
    )
    return config


@pytest.fixture
def build(tiny_base):
    """build(name, **options) -> model, seeded."""
    init_default_scope('mmseg')

    def build_model(name='upernet', base=None, **options):
        torch.manual_seed(0)
        return MODELS.build(tiny_config(base or tiny_base, name, **options).model)

    return build_model


@pytest.fixture
def batch():
    """Two random images and labels of 96x96, one of the labels partly ignored."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 96, 96, generator=generator)
    labels = torch.randint(0, 12, (2, 1, 12, 12), generator=generator).repeat_interleave(8, -1).repeat_interleave(8, -2)
    labels[0, :, :16] = 255
    return images, [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={'img_shape': (96, 96)}) for label in labels
    ]
