# ft.py with 2000 labelled training scenes instead of 400.
_base_ = ['./ft.py']
train_dataloader = dict(dataset=dict(indices=2000))
