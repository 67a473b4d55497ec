# Restore, then segment: the model of resnet_camvid_tiny.py, and its checkpoint, behind the restorer of
# scr/scr_camvid_tiny.py. tools/test.py takes the checkpoint that resnet_camvid_tiny.py wrote.
_base_ = ['./resnet_camvid_tiny.py']
model = dict(
    _delete_=True,
    type='RestoreThenSegment',
    restorer=dict(
        type='FileRestorer',
        adapter='work_dirs/scr_camvid_tiny/scr_adapter.safetensors',
        base=['bases/camvid-tiny'],
    ),
    segmentor={{_base_.model}},
)
