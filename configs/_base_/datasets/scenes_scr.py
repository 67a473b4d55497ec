# The scenes of scenes_lq.py as pairs for the restorer: the clean crop is kept beside the degraded one.
_base_ = ['./scenes_lq.py']
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=12),
    dict(type='RandomCrop', crop_size=(96, 96), cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='KeepCleanImage'),
    dict(type='LQDegradation'),
    dict(type='mmagic.PackSCRInputs'),
]
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=12),
    dict(type='LoadCleanImage', lq='img_lq', clean='img_dir', suffix='.png'),
    dict(type='mmagic.PackSCRInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM'])
test_evaluator = val_evaluator
tta_pipeline = None  # the base's segments
