# RASS as in the paper (arXiv 2602.14042) with class-token prompts: Stable Diffusion 2.1-base, ADE20K degraded on the
# fly, Mask2Former, 160k iterations of batch 16 (8 GPUs x 2). model.backbone.scr_adapter takes a restorer's adapter.
# Options, off by default (docs/robustness.md): model.train_cfg.clean_twins.kl_weight, and severity of LQDegradation.
_base_ = [
    '../_base_/models/rass_mask2former.py',
    '../_base_/datasets/ade20k_lq.py',
    '../_base_/schedules/rass_160k.py',
    '../_base_/default_runtime.py',
]
model = dict(classes='ADE20KDataset')
