# RASS with 2000 labelled training scenes instead of 400.
_base_ = ['./rass.py']
train_dataloader = dict(dataset=dict(indices=2000))
