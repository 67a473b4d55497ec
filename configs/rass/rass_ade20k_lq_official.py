# The released segmentor. Its switches stand in the first two files; configs/rass/README.md lists them.
# Base and checkpoint: rass-mm convert rass.pth weights/rass --base SD21.
_base_ = [
    '../_base_/models/rass_mask2former_official.py',
    '../_base_/datasets/ade20k_lq_official.py',
    '../_base_/schedules/rass_160k.py',
    '../_base_/default_runtime.py',
]
model = dict(classes='ADE20KDataset')
