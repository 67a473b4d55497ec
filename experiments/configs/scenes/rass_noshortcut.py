# RASS without the encoder's features: all that the head sees has gone through the UNet.
_base_ = ['./rass.py']
model = dict(backbone=dict(features=['unet.mid_block', *(f'unet.up_blocks.{i}' for i in range(4))]))
