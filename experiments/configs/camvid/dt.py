# DT: the conventional net, trained on clean images.
_base_ = [
    '../_base_/runtime.py',
    '../../../configs/_base_/models/resnet_upernet_tiny.py',
    '../_base_/clean_camvid.py',
    '../_base_/segmentation.py',
]
model = dict(decode_head=dict(num_classes=11))
