# Scores images against their clean ones, without a model and a checkpoint: as it stands, the bicubic enlargements of
# DATA/lq; with test_dataloader.dataset.data_prefix.img=FOLDER, what others have restored into DATA/FOLDER.
# Published bicubic scores are those of OpenCV's kernel; test_dataloader.dataset.pipeline.1.backend=pillow takes the one
# that restorers get.
_base_ = ['../_base_/datasets/pairs.py', '../_base_/scr_runtime.py']
test_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadCleanImage', upscale=True, backend='cv2'),
    dict(type='mmagic.PackSCRInputs'),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_cfg = None
model = dict(
    type='mmagic.AsTheyAre',
    data_preprocessor=dict(type='mmagic.DataPreprocessor', mean=[0, 0, 0], std=[1, 1, 1], stack_data_sample=False),
)
test_evaluator = dict(input_scores=False)  # they are the scores
