# Real street scenes; the base is trained on CamVid's training images:
# rass-mm make-base bases/camvid-tiny --data rass/rass_camvid_tiny.py --vae-steps 1200 --unet-steps 1000 \
#     --unet-crop 24 --unet-batch 8
_base_ = [
    '../_base_/scr_runtime.py',
    '../_base_/models/scr_tiny.py',
    '../_base_/datasets/camvid_scr.py',
    '../_base_/schedules/scr_tiny.py',
]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, begin=0, end=20, by_epoch=False),
    dict(type='PolyLR', eta_min=0, power=0.9, begin=20, end=450, by_epoch=False),
]
train_cfg = dict(max_iters=450, val_interval=450)
model = dict(base=['bases/camvid-tiny'], classes='CamVidDataset')
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=10))
