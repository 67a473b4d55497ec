# rass.py on a base whose UNet learned for 300 steps only (the autoencoder is the same).
_base_ = ['./rass.py']
model = dict(backbone=dict(base=['bases/experiments/camvid-short']))
