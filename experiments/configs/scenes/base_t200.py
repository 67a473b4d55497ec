# base.py with the UNet told timestep 200 instead of 1.
_base_ = ['./base.py']
model = dict(backbone=dict(timestep=200))
