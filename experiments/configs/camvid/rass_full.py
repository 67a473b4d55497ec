# RASS with all of the UNet trained instead of a LoRA.
_base_ = ['./rass.py']
model = dict(backbone=dict(train_parameters='unet'))
