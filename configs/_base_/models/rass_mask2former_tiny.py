# The paper's model at tiny width, on the embedded scene base.
_base_ = ['./rass_mask2former.py']
num_classes = 12
attention = dict(embed_dims=64, num_heads=4)
model = dict(
    data_preprocessor=dict(size=(96, 96), test_cfg=dict(size_divisor=32)),
    classes='ScenesDataset',
    backbone=dict(
        base=['bases/scenes-tiny'],
        expect=dict(_delete_=True, cross_attention_dim=64),
        features=[
            'vae.down_blocks.1',
            'vae.down_blocks.2',
            'unet.mid_block',
            *(f'unet.up_blocks.{i}' for i in range(4)),
        ],
    ),
    neck=dict(out_channels=64, width=32, num_groups=8),
    decode_head=dict(
        **dict(in_channels=[64] * 4, feat_channels=64, out_channels=64, num_classes=num_classes, num_queries=30),
        pixel_decoder=dict(
            encoder=dict(
                num_layers=2,
                layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=64, feedforward_channels=128)),
            ),
            positional_encoding=dict(num_feats=32),
        ),
        positional_encoding=dict(num_feats=32),
        transformer_decoder=dict(
            num_layers=3,
            layer_cfg=dict(
                self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=dict(embed_dims=64, feedforward_channels=128)
            ),
        ),
        loss_cls=dict(class_weight=[1.0] * num_classes + [0.1]),
        train_cfg=dict(num_points=1024),
    ),
    test_cfg=dict(_delete_=True, mode='whole'),
)
