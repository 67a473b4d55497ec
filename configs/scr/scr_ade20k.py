# SCR (arXiv 2602.14042) on Stable Diffusion 2.1-base and ADE20K: 512 crops, 4 GPUs x batch 4.
_base_ = [
    '../_base_/models/scr.py',
    '../_base_/datasets/ade20k_scr.py',
    '../_base_/schedules/scr_50k.py',
    '../_base_/scr_runtime.py',
]
model = dict(classes='ADE20KDataset')
