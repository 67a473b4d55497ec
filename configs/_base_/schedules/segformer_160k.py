# mmsegmentation's schedule of SegFormer and SegNeXt, 160k iterations: AdamW 6e-5, ten times that for the head, warm-up,
# linear decay, float32.
_no_decay = dict(decay_mult=0.0)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=6e-5, weight_decay=0.01, betas=(0.9, 0.999)),
    paramwise_cfg=dict(custom_keys={'pos_block': _no_decay, 'norm': _no_decay, 'head': dict(lr_mult=10.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, begin=0, end=1500, by_epoch=False),
    dict(type='PolyLR', eta_min=0, power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(type='ResumableIterLoop', max_iters=160000, val_interval=10000)
