# base.py on the base that learned on drawn scenes first and then on CamVid's training images.
_base_ = ['./base.py']
model = dict(backbone=dict(base=['bases/experiments/camvid-both']))
