# RealLQ for the test; training and validation are ade20k_lq.py's. Its archive unpacks to data/RealLQ.
_base_ = ['./ade20k_lq.py']
test_dataloader = dict(
    dataset=dict(
        type='RealLQDataset',
        data_root='data/RealLQ/ADEChallengeData2016',
        img_suffix='.jpg',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    )
)
