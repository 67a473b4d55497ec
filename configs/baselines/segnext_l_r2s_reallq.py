# segnext_l_r2s_ade20k_lq.py, tested on RealLQ; takes the same checkpoint.
_base_ = ['./segnext_l_r2s_ade20k_lq.py', '../_base_/datasets/reallq.py']
test_dataloader = _base_.reallq
