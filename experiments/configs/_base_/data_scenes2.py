# 400 labelled training scenes of 128x128 and 500 validation scenes.
_base_ = ['../../../configs/_base_/datasets/scenes_lq.py']
data_root = 'data/experiments/scenes2'
train_pipeline = [
    dict(step, recipe=dict(version=2)) if step.type == 'LQDegradation' else step for step in _base_.train_pipeline
]
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=100))  # the curves; tests take all
test_dataloader = dict(dataset=dict(data_root=data_root))
