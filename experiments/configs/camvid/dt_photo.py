# dt.py with photometric distortion: the validation clip is lit differently from the training images.
_base_ = ['./dt.py']
train_pipeline = [
    part
    for step in _base_.train_pipeline
    for part in ([step, dict(type='PhotoMetricDistortion')] if step.type == 'RandomFlip' else [step])
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
