# RASS on the embedded scene base (f4 autoencoder, UNet of 24 to 96 channels) with a small UPerNet head.
num_classes = 12
data_preprocessor = dict(
    type='SegDataPreProcessor',
    mean=[127.5, 127.5, 127.5],  # to [-1, 1], the range of the VAE
    std=[127.5, 127.5, 127.5],
    bgr_to_rgb=True,
    pad_val=0,
    seg_pad_val=255,
    size=(96, 96),
    test_cfg=dict(size_divisor=32),
)
model = dict(
    type='RASS',
    data_preprocessor=data_preprocessor,
    classes='ScenesDataset',
    prompt=dict(type='ClassTokens'),
    backbone=dict(
        type='DiffusionBackbone',
        base=['bases/scenes-tiny'],
        expect=dict(cross_attention_dim=64, prediction_type='epsilon'),
        scr_adapter=None,
        adapter=dict(rank=8, alpha=16),
        features=[
            *('vae.down_blocks.1', 'vae.down_blocks.2', 'unet.mid_block'),
            *('unet.up_blocks.0', 'unet.up_blocks.1', 'unet.up_blocks.2', 'unet.up_blocks.3'),
        ],
        timestep=1,
    ),
    neck=dict(type='FeatureProjection', out_channels=64, width=32, num_groups=8),
    decode_head=dict(
        type='UPerHead',
        in_channels=[64, 64, 64, 64],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=dict(type='GN', num_groups=8),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
