# R2S with the checkpoint of dt_long.py.
_base_ = ['./r2s.py']
train_cfg = dict(max_iters=3600)
