# OSEDiff's optimisers (AdamW 5e-5 constant, clip 1.0), one for the generator and one for the VSD critic. The number of
# iterations is our choice: the restorer's own schedule is not published.
_optimizer = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),  # bfloat16 has float32's range
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=1e-2, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=dict(max_norm=1.0, norm_type=2),
)
optim_wrapper = dict(constructor='mmagic.SCROptimWrapperConstructor', generator=_optimizer, critic=_optimizer)
param_scheduler = []
train_cfg = dict(type='ResumableIterLoop', max_iters=50000, val_interval=5000)
