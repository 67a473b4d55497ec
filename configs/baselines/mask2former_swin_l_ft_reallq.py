# mask2former_swin_l_ft_ade20k_lq.py, tested on RealLQ; takes the same checkpoint.
_base_ = ['./mask2former_swin_l_ft_ade20k_lq.py', '../_base_/datasets/reallq.py']
test_dataloader = _base_.reallq
