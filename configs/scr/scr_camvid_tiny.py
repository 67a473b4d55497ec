# Real street scenes; the base is trained on CamVid's training images:
# rass-mm make-base bases/camvid-tiny --data rass/rass_camvid_tiny.py --vae-steps 1200 --unet-steps 1000 \
#     --unet-crop 24 --unet-batch 8
_base_ = [
    '../_base_/scr_runtime.py',
    '../_base_/models/scr_tiny.py',
    '../_base_/datasets/camvid_scr.py',
    '../_base_/schedules/scr_tiny.py',
]
model = dict(base=['bases/camvid-tiny'], classes='CamVidDataset')
default_hooks = dict(checkpoint=dict(interval=100), logger=dict(interval=10))
