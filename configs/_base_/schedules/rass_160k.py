# The paper's schedule: AdamW 1e-4, a tenth of it for LoRA and projections, poly decay over 160k iterations, clip 0.01.
# No weight decay for norms and the head's three embeddings; the pixel decoder's level encoding has it, as released.
embed = dict(lr_mult=1.0, decay_mult=0.0)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    constructor='NormDecayOptimWrapperConstructor',  # mmengine's own would decay the norms that the key `neck` matches
    dtype='bfloat16',
    loss_scale=dict(enabled=False),  # bfloat16 has float32's range
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1),
            'neck': dict(lr_mult=0.1),
            'query_embed': embed,
            'query_feat': embed,
            'level_embed': embed,
        },
        norm_decay_mult=0.0,
    ),
)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=160000, by_epoch=False)]
train_cfg = dict(type='ResumableIterLoop', max_iters=160000, val_interval=10000)
