# The diffusion backbone in mmseg's own EncoderDecoder under its FCN head; data and schedule of rass_scenes_tiny.py.
_base_ = [
    '../_base_/tiny_runtime.py',
    '../_base_/models/fcn_diffusion_tiny.py',
    '../_base_/datasets/scenes_lq.py',
    '../_base_/schedules/tiny.py',
]
