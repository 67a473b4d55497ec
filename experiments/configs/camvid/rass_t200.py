# RASS with the UNet told timestep 200 instead of 1: features of another noise level.
_base_ = ['./rass.py']
model = dict(backbone=dict(timestep=200))
