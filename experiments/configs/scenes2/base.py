# The diffusion backbone on the trained base, with a fresh LoRA, on degraded images.
# For RASS, SCR's LoRA is merged into the UNet first: model.backbone.scr_adapter=FILE.
_base_ = [
    '../_base_/segmentation.py',
    '../../../configs/_base_/models/rass_upernet_tiny.py',
    '../_base_/data_scenes2.py',
]
model = dict(backbone=dict(base=['rass_mm/demo/base/weights/scenes']))
