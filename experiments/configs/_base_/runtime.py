# Runs that may be killed at any time: one checkpoint to go on from, every tenth loss in the log.
_base_ = ['../../../configs/_base_/default_runtime.py']
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1, save_best=None), logger=dict(interval=10))
