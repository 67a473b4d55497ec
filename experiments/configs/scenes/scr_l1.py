# The restorer with the semantic constraint at 1.
_base_ = ['./scr.py']
model = dict(losses=dict(constraint=dict(loss_weight=1.0)))
