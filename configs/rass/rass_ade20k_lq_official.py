# The released segmentor, switch by switch; configs/rass/README.md lists them beside our own defaults. Base and
# checkpoint: rass-mm convert rass.pth weights/rass --base SD21. In training the tags are taken of the clean crop.
_base_ = ['./rass_ade20k_lq.py']
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
model = dict(
    # Padding right and below to a multiple of 8, black.
    data_preprocessor=dict(type='RawPadPreProcessor', raw_pad_val=0, test_cfg=dict(size_divisor=8)),
    backbone=dict(
        base=['weights/rass/base'],
        sample_latent=False,  # the posterior's mode; the released code draws the latent: True
        resize_features=True,  # windows whose side is a multiple of 8 only
    ),
    prompt=dict(
        _delete_=True,
        type='TagPrompt',
        style='list',  # "sky  tree  road", without commas
        truncate=True,
        tagger=dict(
            type='RAMTagger',
            weights='weights/ram_swin_large_14m.pth',
            padding=True,
            antialias=False,
            dtype='float16',  # on a CPU float32
        ),
    ),
    test_cfg=dict(_delete_=True, mode='stitched', window_batch=4),
)
val_evaluator = dict(type='MeanIoUMetric', mean_over='present')  # detectron2's rule
test_evaluator = val_evaluator
