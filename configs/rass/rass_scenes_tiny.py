# The main job on the embedded default: minutes on two CPU cores.
_base_ = [
    '../_base_/tiny_runtime.py',
    '../_base_/models/rass_upernet_tiny.py',
    '../_base_/datasets/scenes_lq.py',
    '../_base_/schedules/tiny.py',
]
