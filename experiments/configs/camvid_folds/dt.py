# DT: the conventional net, trained on clean images.
_base_ = ['./ft.py']
train_pipeline = [step for step in _base_.train_pipeline if step.type != 'LQDegradation']
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
