# Runtime and schedule of every segmentor: AdamW at one rate, warm-up, polynomial decay, a validation at each quarter.
# A run may be killed at any time: a checkpoint every 100 steps, of which the last is kept.
_base_ = ['../../../configs/_base_/default_runtime.py']
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1, save_best=None), logger=dict(interval=10))
max_iters = 1200
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', eta_min=0, power=0.9, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='ResumableIterLoop', max_iters=max_iters, val_interval=max_iters // 4)
