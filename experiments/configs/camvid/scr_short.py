# scr.py on the base of base_short.py.
_base_ = ['./scr.py']
model = dict(base=['bases/experiments/camvid-short'])
