# OSEDiff (arXiv 2406.08177) as published: x0 form at t=999, LoRA in UNet and VAE encoder, DAPE's tags, colours of the input.
# rass-mm convert osediff.pkl weights/osediff.safetensors --base bases/stable-diffusion-2-1-base; test without a checkpoint.
_base_ = ['./scr_osediff_untagged.py']
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
