# FT: the conventional net, trained on degraded images.
_base_ = [
    '../_base_/runtime.py',
    '../../../configs/_base_/models/resnet_upernet_tiny.py',
    '../_base_/data_scenes.py',
    '../_base_/segmentation.py',
]
model = dict(
    backbone=dict(base_channels=64, stem_channels=64),  # the usual width: a step costs about what one of RASS costs
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
