# SegNeXt-L, FT: trained on ADE20K degraded on the fly, as rass/rass_ade20k_lq.py.
_base_ = [
    '../_base_/models/segnext_l.py',
    '../_base_/datasets/ade20k_lq.py',
    '../_base_/schedules/segformer_160k.py',
    '../_base_/default_runtime.py',
]
