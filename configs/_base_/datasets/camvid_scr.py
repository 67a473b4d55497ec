# The images of camvid_lq.py as pairs for the restorer: the clean crop is kept beside the degraded one.
_base_ = ['./camvid_lq.py']
crop_size = (128, 128)
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=11),
    dict(type='RandomResize', scale=(480, 360), ratio_range=(0.5, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='KeepCleanImage'),
    dict(type='LQDegradation'),
    dict(type='mmagic.PackSCRInputs'),
]
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=11),
    dict(type='LoadCleanImage', lq='img_lq', clean='img_dir', suffix='.jpg'),
    dict(type='mmagic.PackSCRInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM'])
test_evaluator = val_evaluator
tta_pipeline = None  # the base's segments
