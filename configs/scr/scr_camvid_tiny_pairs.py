# Tests the tiny restorer of scr_camvid_tiny.py on image pairs without labels.
_base_ = [
    '../_base_/models/scr_tiny.py',
    '../_base_/datasets/pairs.py',
    '../_base_/scr_runtime.py',
]
val_cfg = None
model = dict(
    base=['bases/camvid-tiny'],
    classes='CamVidDataset',
    losses=None,
    test_cfg=dict(attention=False, window=256, overlap=64, window_batch=4),
)
