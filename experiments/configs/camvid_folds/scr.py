# SCR: the restorer, with the semantic constraint at 0.1, on pairs of the same training images.
_base_ = ['../camvid/scr.py']
data_root = 'data/experiments/camvid_fold0'
model = dict(base=['bases/experiments/camvid_fold0'])
train_pipeline = [
    dict(step, recipe=dict(version=2)) if step.type == 'LQDegradation' else step for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=list(range(0, 121, 3))))  # the curves; tests take all
test_dataloader = dict(dataset=dict(data_root=data_root))
