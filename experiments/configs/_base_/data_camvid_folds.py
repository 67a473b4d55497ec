# CamVid at half size, 240x180, in folds by time; the row of the table overrides the data root.
_base_ = ['./data_camvid.py']
data_root = 'data/experiments/camvid_fold0'
train_pipeline = [
    dict(step, recipe=dict(version=2)) if step.type == 'LQDegradation' else step for step in _base_.train_pipeline
]
train_dataloader = dict(dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=list(range(0, 121, 3))))  # the curves; tests take all
test_dataloader = dict(dataset=dict(data_root=data_root))
