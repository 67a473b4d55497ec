# base.py on a base that has seen CamVid's training images only, for longer.
_base_ = ['./base.py']
model = dict(backbone=dict(base=['bases/experiments/camvid-alone']))
