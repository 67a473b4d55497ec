# SCR: the restorer, with the semantic constraint at 0.1.
_base_ = [
    '../_base_/restorer_runtime.py',
    '../../../configs/_base_/models/scr_tiny.py',
    '../_base_/pairs_scenes.py',
    '../_base_/restoration.py',
]
model = dict(classes='ScenesDataset', base=['bases/experiments/scenes'])
