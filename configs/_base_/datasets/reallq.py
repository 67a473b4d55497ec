# RealLQ, for tests of models trained on ADE20K. Its archive unpacks to data/RealLQ. A config takes it by
# _base_ = [CONFIG_ON_ADE20K, '../_base_/datasets/reallq.py'] and test_dataloader = _base_.reallq
reallq = dict(
    dataset=dict(
        type='RealLQDataset',
        data_root='data/RealLQ/ADEChallengeData2016',
        img_suffix='.jpg',
        # Labels are in annotations_detectron2/validation or in annotations/validation: the data set looks for them.
        data_prefix=dict(img_path='images/validation', seg_map_path=None),
    )
)
