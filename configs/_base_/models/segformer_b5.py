# SegFormer-B5 as in mmsegmentation; its head is 256 wide, where the authors' own code has 768.
_base_ = ['./segformer_b0.py']
model = dict(
    backbone=dict(
        embed_dims=64, num_layers=[3, 6, 40, 3], init_cfg=dict(type='Pretrained', checkpoint='pretrained/mit_b5.pth')
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
)
