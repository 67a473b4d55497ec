# base.py with light and colour varied in training, as the validation drive is darker than the training ones.
_base_ = ['./base.py']
train_pipeline = [
    part
    for step in _base_.train_pipeline
    for part in ([step, dict(type='PhotoMetricDistortion')] if step.type == 'RandomFlip' else [step])
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
