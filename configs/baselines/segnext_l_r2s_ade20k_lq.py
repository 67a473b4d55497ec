# SegNeXt-L, R2S: SCR restores the degraded images, the model of segnext_l_dt_ade20k_lq.py segments
# them; tools/test.py takes that model's checkpoint.
_base_ = ['./segnext_l_dt_ade20k_lq.py']
model = dict(
    _delete_=True,
    type='RestoreThenSegment',
    restorer=dict(
        type='FileRestorer',
        adapter='work_dirs/scr_ade20k/scr_adapter.safetensors',
        base=['bases/stable-diffusion-2-1-base'],
        window=512,
        overlap=128,
        window_batch=4,
    ),
    segmentor={{_base_.model}},
)
