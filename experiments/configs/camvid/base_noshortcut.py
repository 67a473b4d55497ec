# base.py without the encoder's features.
_base_ = ['./base.py']
model = dict(backbone=dict(features=['unet.mid_block', *(f'unet.up_blocks.{i}' for i in range(4))]))
