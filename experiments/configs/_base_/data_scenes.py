# 400 labelled training scenes of 128x128 and 200 validation scenes.
_base_ = ['../../../configs/_base_/datasets/scenes_lq.py']
data_root = 'data/experiments/scenes'
train_pipeline = [
    dict(step, recipe=dict(version=1)) if step.type == 'LQDegradation' else step  # the version of all records
    for step in _base_.train_pipeline
]
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, indices=400, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=100))  # the curves; tests take all
test_dataloader = dict(dataset=dict(data_root=data_root))
