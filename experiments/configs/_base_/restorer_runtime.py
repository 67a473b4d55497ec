# The same for restorers.
_base_ = ['../../../configs/_base_/scr_runtime.py']
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1, save_best=None), logger=dict(interval=10))
