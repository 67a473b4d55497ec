"""Decode heads of RASS on the small base."""

from head_contract import HeadContract
from mmengine.config import Config

import rass_mm

MLP = Config.fromfile(str(rass_mm.config_path('rass/rass_ade20k_lq_segformer.py'))).model.decode_head.to_dict()
SMALL = {'in_channels': [64] * 4, 'channels': 64, 'num_classes': 12, 'norm_cfg': {'type': 'GN', 'num_groups': 8}}


class TestUPerNet(HeadContract):
    name = 'upernet'


class TestMask2Former(HeadContract):
    name = 'mask2former'


class TestSegFormer(HeadContract):
    """The head of the full-size config, at the width of the small base."""

    options = {'decode_head': {**MLP, **SMALL, '_delete_': True}}
