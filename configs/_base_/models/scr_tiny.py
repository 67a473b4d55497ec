# SCR on a small base. No LPIPS (its weights must be fetched) and no VSD (a small base is no judge of images).
_base_ = ['./scr.py']
model = dict(
    classes='ScenesDataset',
    base=['bases/scenes-tiny'],
    expect=dict(_delete_=True, cross_attention_dim=64, prediction_type='epsilon'),
    adapter=dict(rank=16, alpha=32),
    losses=dict(
        pixel=dict(loss_weight=10.0),
        perceptual=dict(loss_weight=0.0),
        score=dict(loss_weight=0.0, negative_prompt='blurring, low quality'),
    ),
    test_cfg=dict(_delete_=True, mode='restore', attention=True),
)
