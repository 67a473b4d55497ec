# The conventional alternative to rass_scenes_tiny.py: same data, degradations, head and schedule.
_base_ = [
    '../_base_/tiny_runtime.py',
    '../_base_/models/resnet_upernet_tiny.py',
    '../_base_/datasets/scenes_lq.py',
    '../_base_/schedules/tiny.py',
]
