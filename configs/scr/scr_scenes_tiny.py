# The restorer of the main job on the embedded default: minutes on two CPU cores.
_base_ = [
    '../_base_/scr_runtime.py',
    '../_base_/models/scr_tiny.py',
    '../_base_/datasets/scenes_scr.py',
    '../_base_/schedules/scr_tiny.py',
]
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=10))
