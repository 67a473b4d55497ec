# mmseg's EncoderDecoder and FCN head on the diffusion backbone: no neck, the head reads the features as they are. The
# backbone is that of rass_upernet_tiny.py, on the embedded scene base.
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
    type='EncoderDecoder',
    data_preprocessor=data_preprocessor,
    backbone=dict(
        type='DiffusionBackbone',
        base=['bases/scenes-tiny'],
        expect=dict(cross_attention_dim=64, prediction_type='epsilon'),
        adapter=dict(rank=8, alpha=16),
        # 32, 24, 96, 96 channels at strides 4, 4, 8, 16
        features=['vae.down_blocks.1', 'unet.up_blocks.3', 'unet.up_blocks.1', 'unet.up_blocks.0'],
        classes='ScenesDataset',  # names of the prompt
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=[32, 24, 96, 96],
        in_index=[0, 1, 2, 3],
        input_transform='resize_concat',
        channels=64,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=num_classes,
        norm_cfg=dict(type='GN', num_groups=8),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
