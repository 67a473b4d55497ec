# Embedded scenes for the restorer (rass-mm make-scenes data/scenes); validation pairs need the degraded copy made by
# python tools/make_lq_dataset.py data/scenes/img_dir/val data/scenes/img_lq/val
data_root = 'data/scenes'
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
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type='ScenesDataset',
        data_root=data_root,
        data_prefix=dict(img_path='img_dir/train', seg_map_path='ann_dir/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ScenesDataset',
        data_root=data_root,
        img_suffix='.png',
        data_prefix=dict(img_path='img_lq/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM'])
test_evaluator = val_evaluator
