# Mask2Former on Swin-L, DT: trained on clean ADE20K, tested on its degraded copy.
_base_ = [
    '../_base_/models/mask2former_swin_l.py',
    '../_base_/datasets/ade20k_clean.py',
    '../_base_/schedules/mask2former_swin_160k.py',
    '../_base_/default_runtime.py',
]
