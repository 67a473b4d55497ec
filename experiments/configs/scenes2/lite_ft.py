# ft.py with a trunk that was pretrained on ImageNet.
_base_ = ['./ft.py']
custom_imports = dict(imports=['rass_mm', 'experiments.lite_trunk'], allow_failed_imports=False)
model = dict(
    backbone=dict(_delete_=True, type='LiteTrunk'),
    decode_head=dict(in_channels=[24, 40, 112, 320]),
)
