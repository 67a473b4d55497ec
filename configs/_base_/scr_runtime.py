# What restorer runs change: mmagic's side, their own data parallelism, the adapter file beside every checkpoint, and no
# hook that draws label maps.
_base_ = ['./default_runtime.py']
custom_imports = dict(imports=['rass_mm', 'rass_mm.restoration'], allow_failed_imports=False)
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=5000,
        max_keep_ckpts=3,
        save_best='PSNR',
        rule='greater',
        backend_args=dict(backend='atomic_local'),
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [dict(type='IterationSeedHook'), dict(type='mmagic.SaveAdapterHook', interval=1000)]
model_wrapper_cfg = dict(type='mmagic.WholeModelDistributed')
