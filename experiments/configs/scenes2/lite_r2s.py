# R2S: the net of lite_dt.py, and its checkpoint, behind the restorer of scr.py.
_base_ = ['./lite_dt.py']
model = dict(
    _delete_=True,
    type='RestoreThenSegment',
    restorer=dict(type='FileRestorer', adapter='scr_adapter.safetensors', base=['rass_mm/demo/base/weights/scenes']),
    segmentor={{_base_.model}},
)
