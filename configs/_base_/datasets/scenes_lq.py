# Embedded scenes (rass-mm make-scenes data/scenes); the degraded validation copy is made by
# python tools/make_lq_dataset.py data/scenes/img_dir/val data/scenes/img_lq/val
dataset_type = 'ScenesDataset'
data_root = 'data/scenes'
clean_val = dict(img_path='img_dir/val', img_suffix='.png')  # what the degraded copy was made of
crop_size = (96, 96)
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=12),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='LQDegradation'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=12),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageStrict'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=factor, keep_ratio=True) for factor in (1.0, 1.25)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadLabelStrict', num_classes=12)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='SeededSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
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
        type=dataset_type,
        data_root=data_root,
        img_suffix='.png',
        data_prefix=dict(img_path='img_lq/val', seg_map_path='ann_dir/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
