# Short runs: log and save often.
_base_ = ['./default_runtime.py']
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=10))
