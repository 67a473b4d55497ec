# The diffusion backbone from the trained base, without SCR: a fresh LoRA on degraded images.
_base_ = [
    '../_base_/runtime.py',
    '../../../configs/_base_/models/rass_upernet_tiny.py',
    '../_base_/data_camvid.py',
    '../_base_/segmentation.py',
]
model = dict(
    backbone=dict(base=['bases/experiments/camvid']),
    classes='CamVidDataset',
    decode_head=dict(num_classes=11),
)
