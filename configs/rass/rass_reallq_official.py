# The released segmentor of rass_ade20k_lq_official.py, tested on RealLQ; takes the same checkpoint.
_base_ = ['./rass_ade20k_lq_official.py', '../_base_/datasets/reallq.py']
test_dataloader = _base_.reallq
