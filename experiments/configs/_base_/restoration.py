# Runtime and schedule of every restorer.
_base_ = ['../../../configs/_base_/scr_runtime.py', '../../../configs/_base_/schedules/scr_tiny.py']
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1, save_best=None), logger=dict(interval=10))
max_iters = 500
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', eta_min=0, power=0.9, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='ResumableIterLoop', max_iters=max_iters, val_interval=max_iters)
