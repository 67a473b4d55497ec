# rass_mask2former.py as released, switch by switch; configs/rass/README.md lists them beside our own defaults.
_base_ = ['./rass_mask2former.py']
model = dict(
    # Padding right and below to a multiple of 8, black.
    data_preprocessor=dict(type='RawPadPreProcessor', raw_pad_val=0, test_cfg=dict(size_divisor=8)),
    backbone=dict(
        base=['weights/rass/base'],
        sample_latent=False,  # the posterior's mode; the released code draws the latent: True
        resize_features=True,  # windows whose side is a multiple of 8 only
    ),
    prompt=dict(
        _delete_=True,
        type='TagPrompt',
        style='list',  # "sky  tree  road", without commas
        truncate=True,
        tagger=dict(
            type='RAMTagger',
            weights='weights/ram_swin_large_14m.pth',
            padding=True,
            antialias=False,
            dtype='float16',  # on a CPU float32
        ),
    ),
    test_cfg=dict(_delete_=True, mode='stitched', window_batch=4),
)
