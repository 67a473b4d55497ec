# RASS with SegFormer's MLP head instead of Mask2Former: 1x1 convolutions at stride 4, for slow machines.
_base_ = ['./rass_mask2former.py']
model = dict(
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[512, 512, 512, 512],
        in_index=[0, 1, 2, 3],
        channels=256,
        dropout_ratio=0.1,
        num_classes=_base_.num_classes,
        norm_cfg=dict(type='GN', num_groups=32),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
)
