# Training on clean images, for what is tested on degraded ones (DT); all else is ade20k_lq.py's.
_base_ = ['./ade20k_lq.py']
train_pipeline = [step for step in _base_.train_pipeline if step.type != 'LQDegradation']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
