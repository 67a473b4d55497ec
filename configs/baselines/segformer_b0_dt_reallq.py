# segformer_b0_dt_ade20k_lq.py, tested on RealLQ; takes the same checkpoint.
_base_ = ['./segformer_b0_dt_ade20k_lq.py']
test_dataloader = dict(
    dataset=dict(
        type='RealLQDataset',
        data_root='data/RealLQ/ADEChallengeData2016',
        img_suffix='.jpg',
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    )
)
