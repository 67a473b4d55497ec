# ft.py trained on the clean and the degraded version of each crop. A batch of two pairs costs as much as four images.
_base_ = ['./ft.py']
model = dict(train_cfg=dict(clean_twins=dict(kl_weight=1.0)))
train_dataloader = dict(batch_size=2)
