# base.py on a base whose UNet learned for 300 steps only (the autoencoder is the same).
_base_ = ['./base.py']
model = dict(backbone=dict(base=['bases/experiments/scenes-short']))
