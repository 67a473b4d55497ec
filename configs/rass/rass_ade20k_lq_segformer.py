# rass_ade20k_lq.py with SegFormer's MLP head, which takes a fraction of Mask2Former's time: docs/speed.md. Not trained.
_base_ = [
    '../_base_/models/rass_segformer.py',
    '../_base_/datasets/ade20k_lq.py',
    '../_base_/schedules/rass_160k.py',
    '../_base_/default_runtime.py',
]
model = dict(classes='ADE20KDataset')
