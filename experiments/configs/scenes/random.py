# The diffusion backbone from random weights (the autoencoder is the trained one); all of the UNet learns.
_base_ = ['./base.py']
model = dict(backbone=dict(base=['bases/experiments/scenes-random'], train_parameters='unet'))
