# rass_full.py at a lower rate: the UNet's own weights move more per step than a LoRA's.
_base_ = ['./rass_full.py']
optim_wrapper = dict(optimizer=dict(lr=3e-4))
