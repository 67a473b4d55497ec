# RASS: SCR's LoRA is merged into the UNet first. It is given by model.backbone.scr_adapter=FILE.
_base_ = ['./base.py']
