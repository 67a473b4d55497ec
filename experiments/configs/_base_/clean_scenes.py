# The same training images, not degraded.
_base_ = ['./data_scenes.py']
train_pipeline = [step for step in _base_.train_pipeline if step.type != 'LQDegradation']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
