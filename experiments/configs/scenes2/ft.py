# FT: the conventional net, trained on degraded images.
_base_ = [
    '../_base_/segmentation.py',
    '../../../configs/_base_/models/resnet_upernet_tiny.py',
    '../_base_/data_scenes2.py',
]
model = dict(
    backbone=dict(base_channels=64, stem_channels=64),  # the usual width: a step costs about as much as one of RASS
    decode_head=dict(in_channels=[64, 128, 256, 512]),
)
