# OSEDiff (arXiv 2406.08177) as published: x0 form at t=999, LoRA in UNet and VAE encoder, DAPE's tags, the input's
# colours. rass-mm convert osediff.pkl weights/osediff.safetensors --base SD21; tools/test.py takes no checkpoint.
_base_ = ['./osediff_sd21_pairs_untagged.py']
model = dict(
    test_prompt=dict(
        _delete_=True,
        type='TagPrompt',
        suffix=', ,',
        truncate=True,
        tagger=dict(
            type='RAMTagger', weights='weights/ram_swin_large_14m.pth', condition='weights/DAPE.pth', image_size=384
        ),
    ),
)
