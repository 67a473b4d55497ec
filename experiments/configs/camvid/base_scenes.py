# base.py on the base that has seen drawn scenes only.
_base_ = ['./base.py']
model = dict(backbone=dict(base=['bases/experiments/scenes']))
