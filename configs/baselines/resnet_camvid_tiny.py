# The conventional alternative to rass_camvid_tiny.py: same data, degradations, head and schedule.
_base_ = [
    '../_base_/tiny_runtime.py',
    '../_base_/models/resnet_upernet_tiny.py',
    '../_base_/datasets/camvid_lq.py',
    '../_base_/schedules/tiny.py',
]
num_classes = 11
model = dict(data_preprocessor=dict(size=(192, 192)), decode_head=dict(num_classes=num_classes))
