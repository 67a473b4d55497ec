# The model of rass_ade20k_lq.py, tested on RealLQ; takes the same checkpoint.
_base_ = [
    '../_base_/models/rass_mask2former.py',
    '../_base_/datasets/reallq.py',
    '../_base_/schedules/rass_160k.py',
    '../_base_/default_runtime.py',
]
model = dict(classes='ADE20KDataset')
