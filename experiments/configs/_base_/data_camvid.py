# CamVid at half size, 240x180: 367 training and 101 validation images.
_base_ = ['../../../configs/_base_/datasets/camvid_lq.py']
data_root = 'data/experiments/camvid-half'
clean_val = dict(img_path='img_dir/val', img_suffix='.png')
crop_size = (96, 96)
train_pipeline = [
    dict(type='SeedSample'),
    dict(type='LoadImageStrict'),
    dict(type='LoadLabelStrict', num_classes=11),
    dict(type='RandomResize', scale=(240, 180), ratio_range=(0.75, 1.25), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.9),
    dict(type='RandomFlip', prob=0.5),
    dict(type='LQDegradation', recipe=dict(version=1)),  # the version of all records
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, img_suffix='.png', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=list(range(0, 101, 3))))  # the curves; tests take all
test_dataloader = dict(dataset=dict(data_root=data_root))
