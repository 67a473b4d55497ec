# RASS on the restorer that learned without the semantic constraint (scr_l0.py).
_base_ = ['./rass.py']
