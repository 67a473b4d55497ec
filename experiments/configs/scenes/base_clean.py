# base.py trained on clean images: what robustness costs on them.
_base_ = ['./base.py']
train_pipeline = [step for step in _base_.train_pipeline if step.type != 'LQDegradation']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
