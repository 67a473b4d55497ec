# The restorer without the semantic constraint.
_base_ = ['./scr.py']
model = dict(losses=dict(constraint=dict(loss_weight=0.0)))
