# The released segmentor of rass_ade20k_lq_official.py, tested on RealLQ; takes the same checkpoint.
_base_ = ['./rass_ade20k_lq_official.py']
test_dataloader = dict(
    dataset=dict(
        type='RealLQDataset',
        data_root='data/RealLQ/ADEChallengeData2016',
        img_suffix='.jpg',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    )
)
