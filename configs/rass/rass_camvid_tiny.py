# Real street scenes on the embedded base: the scene base is small, but its code path is Stable Diffusion's.
_base_ = [
    '../_base_/tiny_runtime.py',
    '../_base_/models/rass_upernet_tiny.py',
    '../_base_/datasets/camvid_lq.py',
    '../_base_/schedules/tiny.py',
]
num_classes = 11
model = dict(
    data_preprocessor=dict(size=(192, 192)),
    classes='CamVidDataset',
    decode_head=dict(num_classes=num_classes),
)
