# mmsegmentation's schedule of Mask2Former on Swin, 160k iterations: AdamW 1e-4, a tenth of it for the backbone, poly
# decay, clip 0.01, float32; no weight decay for norms and embeddings.
_backbone = dict(lr_mult=0.1, decay_mult=0.0)
_head = dict(lr_mult=1.0, decay_mult=0.0)
_norms = [f'stages.{stage}.blocks.{block}.norm' for stage, depth in enumerate((2, 2, 18, 2)) for block in range(depth)]
_norms += ['patch_embed.norm', 'norm', *(f'stages.{stage}.downsample.norm' for stage in range(3))]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05, betas=(0.9, 0.999), eps=1e-8),
    clip_grad=dict(max_norm=0.01, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'backbone': dict(lr_mult=0.1, decay_mult=1.0),
            **{f'backbone.{name}': _backbone for name in _norms},
            'absolute_pos_embed': _backbone,
            'relative_position_bias_table': _backbone,
            'query_embed': _head,
            'query_feat': _head,
            'level_embed': _head,
        },
        norm_decay_mult=0.0,
    ),
)
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=160000, by_epoch=False)]
train_cfg = dict(type='ResumableIterLoop', max_iters=160000, val_interval=10000)
