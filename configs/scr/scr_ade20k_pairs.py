# Tests a trained SCR (Stable Diffusion 2.1-base, classes of ADE20K) on image pairs without labels.
_base_ = [
    '../_base_/models/scr.py',
    '../_base_/datasets/pairs.py',
    '../_base_/scr_runtime.py',
]
val_cfg = None
model = dict(classes='ADE20KDataset', losses=None)
