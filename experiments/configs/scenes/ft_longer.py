# ft.py on nine times the schedule.
_base_ = ['./ft.py']
max_iters = 10800
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=max_iters)]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 6)
