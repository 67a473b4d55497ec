# What restorer runs change: mmagic's side, their own data parallelism, and the adapter file beside every checkpoint.
_base_ = ['./default_runtime.py']
custom_imports = dict(imports=['rass_mm', 'rass_mm.restoration'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(interval=5000, save_best='PSNR', rule='greater'))
custom_hooks = [dict(type='IterationSeedHook'), dict(type='mmagic.SaveAdapterHook', interval=1000)]
model_wrapper_cfg = dict(type='mmagic.WholeModelDistributed')
