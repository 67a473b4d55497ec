# ADE20K for the restorer: clean crops with labels, degraded on the fly; validation pairs are the images and their fixed
# degraded copy, made by: rass-mm make-lq DATA/images/validation DATA/images_lq/validation
data_root = 'data/ade/ADEChallengeData2016'
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
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ADE20KDataset',
        data_root=data_root,
        img_suffix='.png',
        data_prefix=dict(img_path='images_lq/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM'])
test_evaluator = val_evaluator
