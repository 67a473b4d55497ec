# dt.py with a trunk that was pretrained on ImageNet.
_base_ = ['./lite_ft.py']
train_pipeline = [step for step in _base_.train_pipeline if step.type != 'LQDegradation']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
