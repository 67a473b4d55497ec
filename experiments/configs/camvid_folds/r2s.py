# R2S: the net of dt.py, and its checkpoint, behind the restorer of scr.py.
_base_ = ['./dt.py']
model = dict(
    _delete_=True,
    type='RestoreThenSegment',
    restorer=dict(type='FileRestorer', adapter='scr_adapter.safetensors', base=['bases/experiments/camvid_fold0']),
    segmentor={{_base_.model}},
)
