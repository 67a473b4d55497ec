# SCR on Stable Diffusion 2.1-base: residual form at t=1, OSEDiff's weights of the image and VSD losses, L_SCL at 0.1.
model = dict(
    type='mmagic.SCRRestorer',
    data_preprocessor=dict(
        type='mmagic.DataPreprocessor',
        mean=[127.5, 127.5, 127.5],  # to [-1, 1], the range of the VAE
        std=[127.5, 127.5, 127.5],
        output_channel_order='RGB',
        stack_data_sample=False,
    ),
    base=['bases/stable-diffusion-2-1-base'],
    expect=dict(cross_attention_dim=1024, sample_size=64, prediction_type='epsilon'),
    prompt=dict(type='ClassTokens'),
    form='residual',
    timestep=1,
    adapter=dict(rank=4, alpha=8),
    attention_layers=['mid_block', 'up_blocks'],
    losses=dict(
        pixel=dict(type='MSELoss', loss_weight=1.0),
        perceptual=dict(type='LPIPSLoss', loss_weight=2.0, net='vgg'),
        score=dict(type='VSDLoss', loss_weight=1.0, guidance=7.5, adapter=dict(rank=4, alpha=8)),
        constraint=dict(type='SemanticConstraintLoss', loss_weight=0.1),
    ),
    test_cfg=dict(mode='restore', window=512, overlap=128, window_batch=4, attention=False),
)
