# The paper's head at tiny width on the embedded scenes. It needs far more iterations than UPerNet to become good.
_base_ = [
    '../_base_/tiny_runtime.py',
    '../_base_/models/rass_mask2former_tiny.py',
    '../_base_/datasets/scenes_lq.py',
    '../_base_/schedules/tiny.py',
]
