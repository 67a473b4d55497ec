# ADE20K: training images are degraded on the fly; validation reads the fixed degraded copy made by
# cd data/ade/ADEChallengeData2016 && rass-mm make-lq images/validation images_lq/validation
data_root = 'data/ade/ADEChallengeData2016'
clean_val = dict(img_path='images/validation', img_suffix='.jpg')  # what the degraded copy was made of
crop_size = (512, 512)
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=150),
    dict(
        type='RandomChoiceResize',
        scales=[int(512 * factor * 0.1) for factor in range(5, 21)],
        resize_type='ResizeShortestEdge',
        max_size=2048,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=1.0),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='LQDegradation'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='LoadLabelStrict', num_classes=150),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageStrict'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(2048, int(512 * factor)), keep_ratio=True) for factor in (0.75, 1.0, 1.25)],
            [
                dict(type='RandomFlip', prob=0.0, direction='horizontal'),
                dict(type='RandomFlip', prob=1.0, direction='horizontal'),
            ],
            [dict(type='LoadLabelStrict', num_classes=150)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2,
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
        type='ADE20KLQDataset',
        data_root=data_root,
        img_suffix='.png',
        data_prefix=dict(img_path='images_lq/validation', seg_map_path='annotations/validation'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
