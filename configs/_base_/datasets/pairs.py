# Image pairs without labels, for tests: data/pairs/{lq,gt} with the same names; smaller inputs are enlarged by Pillow's
# bicubic, as the published restorers and `rass-mm restore --upscale` do it.
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadCleanImage', upscale=True, backend='pillow'),
    dict(type='mmagic.PackSCRInputs'),
]
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmagic.BasicImageDataset',
        data_root='data/pairs',
        data_prefix=dict(img='lq', gt='gt'),
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(type='mmagic.RestorationMetrics', scores=['PSNR', 'SSIM', 'NIQE'])
