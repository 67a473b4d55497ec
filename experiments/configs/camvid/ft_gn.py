# ft.py with group norm in the backbone, as in the head: nothing hangs on the statistics of four crops.
_base_ = ['./ft.py']
model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=8)))
