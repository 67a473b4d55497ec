# ade20k_lq.py as the released segmentor reads it: tags of the clean crop in training, Pillow's resize at test, and mIoU
# over the classes with labelled pixels.
_base_ = ['./ade20k_lq.py']
train_pipeline = [
    *_base_.train_pipeline[:-2],
    dict(type='KeepCleanImage'),
    dict(type='LQDegradation'),
    dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction', 'gt')),
]
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True, backend='pillow'),  # antialiased where it shrinks
    dict(type='LoadLabelStrict', num_classes=150),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(type='MeanIoUMetric', mean_over='present')  # detectron2's rule
test_evaluator = val_evaluator
