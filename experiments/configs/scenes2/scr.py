# SCR: the restorer, with the semantic constraint at 0.1, on pairs of the same training images.
_base_ = [
    '../_base_/restoration.py',
    '../../../configs/_base_/models/scr_tiny.py',
    '../_base_/data_scenes2.py',
]
model = dict(classes='ScenesDataset', base=['rass_mm/demo/base/weights/scenes'])
train_pipeline = [
    *[step for step in _base_.train_pipeline if step.type not in ('LQDegradation', 'PackSegInputs')],
    dict(type='KeepCleanImage'),
    dict(type='LQDegradation', recipe=dict(version=2)),
    dict(type='mmagic.PackSCRInputs'),
]
test_pipeline = [
    *_base_.test_pipeline[:-1],
    dict(type='LoadCleanImage', lq='img_lq', clean='img_dir', suffix='.png'),
    dict(type='mmagic.PackSCRInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline), batch_size=1)
test_dataloader = dict(dataset=dict(pipeline=test_pipeline), batch_size=1)
val_evaluator = dict(_delete_=True, type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM'])
test_evaluator = val_evaluator
tta_pipeline = None  # the data set's own one segments
