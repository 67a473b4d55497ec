# Mask2Former as in mmsegmentation on Swin-L, pretrained on ImageNet-22k at 384; the head is that of RASS.
_base_ = ['./rass_mask2former.py']
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],  # ImageNet's, as the backbone was pretrained
    std=[58.395, 57.12, 57.375],
    test_cfg=dict(size_divisor=32),
)
model = dict(
    _delete_=True,
    type='EncoderDecoder',
    data_preprocessor={**_base_.data_preprocessor, **data_preprocessor},
    backbone=dict(
        type='SwinTransformer',
        pretrain_img_size=384,
        embed_dims=192,
        depths=[2, 2, 18, 2],
        num_heads=[6, 12, 24, 48],
        window_size=12,
        drop_path_rate=0.3,
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/swin_large_patch4_window12_384_22k.pth'),
    ),
    decode_head={**_base_.model.decode_head, 'in_channels': [192, 384, 768, 1536]},
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
