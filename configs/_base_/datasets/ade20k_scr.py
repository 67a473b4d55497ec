# The images of ade20k_lq.py as pairs for the restorer: the clean crop is kept beside the degraded one. Every image is
# at least as large as a crop, because a padded border is nothing to restore.
_base_ = ['./ade20k_lq.py']
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=150),
    dict(
        type='RandomChoiceResize',
        scales=[512, 576, 640, 704, 768],
        resize_type='ResizeShortestEdge',
        max_size=2048,
    ),
    dict(type='RandomCrop', crop_size=(512, 512), cat_max_ratio=1.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='KeepCleanImage'),
    dict(type='LQDegradation'),
    dict(type='mmagic.PackSCRInputs'),
]
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=150),
    dict(type='LoadCleanImage', lq='images_lq', clean='images', suffix='.jpg'),
    dict(type='mmagic.PackSCRInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM'])
test_evaluator = val_evaluator
tta_pipeline = None  # the base's segments
