# The released segmentor: tags of the whole image as prompt, short side 512, square windows of the short side whose
# features are stitched and averaged, one head pass. Base and checkpoint: rass-mm convert rass.pth weights/rass --base
# SD21. In training the tags are taken of the clean crop. The released code draws the latent, also at test, where ours
# takes the posterior's mode: model.backbone.sample_latent=True draws it too.
_base_ = ['./rass_ade20k_lq.py']
train_pipeline = [
    *_base_.train_pipeline[:-2],
    dict(type='KeepCleanImage'),
    dict(type='LQDegradation'),
    dict(type='PackSegInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'flip', 'flip_direction', 'gt')),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(
    backbone=dict(base=['weights/rass/base']),
    prompt=dict(
        _delete_=True,
        type='TagPrompt',
        tagger=dict(type='RAMTagger', weights='weights/ram_swin_large_14m.pth'),
        truncate=True,
    ),
    test_cfg=dict(_delete_=True, mode='stitched', window_batch=4),
)
val_evaluator = dict(type='MeanIoUMetric', mean_over='present')  # detectron2's rule
test_evaluator = val_evaluator
