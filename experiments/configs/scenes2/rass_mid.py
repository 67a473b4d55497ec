# base.py trained on all severities of the recipe, from the mildest to the recipe itself.
# For RASS, SCR's LoRA is merged into the UNet first: model.backbone.scr_adapter=FILE.
_base_ = ['./base.py']
train_pipeline = [
    dict(step, severity=(0.0, 1.0)) if step.type == 'LQDegradation' else step for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
