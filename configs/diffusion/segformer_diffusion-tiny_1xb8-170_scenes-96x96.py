# fcn_diffusion-tiny_1xb8-170_scenes-96x96.py under the head of SegFormer, which reads one map per `in_index`.
_base_ = ['./fcn_diffusion-tiny_1xb8-170_scenes-96x96.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[32, 24, 96, 96],
        in_index=[0, 1, 2, 3],
        channels=64,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=dict(type='GN', num_groups=8),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
)
