# RASS on the restorer of scr_l1.py.
_base_ = ['./rass.py']
