# SegFormer-B0, DT: trained on clean ADE20K, tested on its degraded copy.
_base_ = [
    '../_base_/models/segformer_b0.py',
    '../_base_/datasets/ade20k_clean.py',
    '../_base_/schedules/segformer_160k.py',
    '../_base_/default_runtime.py',
]
