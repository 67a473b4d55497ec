# Minutes on two CPU cores: one rate for everything that trains, warm-up, poly decay.
max_iters = 150
_optimizer = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
optim_wrapper = dict(constructor='mmagic.SCROptimWrapperConstructor', generator=_optimizer, critic=_optimizer)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', eta_min=0, power=0.9, begin=20, end=max_iters, by_epoch=False),
]
train_cfg = dict(type='ResumableIterLoop', max_iters=max_iters, val_interval=max_iters)
