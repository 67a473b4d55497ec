# OSEDiff's weights with the empty prompt: what can be run without the tagger (osediff_sd21_pairs.py has it).
# rass-mm convert osediff.pkl weights/osediff.safetensors --base SD21; tools/test.py takes no checkpoint.
_base_ = ['./scr_ade20k_pairs.py']
model = dict(
    start='weights/osediff.safetensors',
    trainable=False,
    form='x0',
    timestep=999,
    prompt=dict(type='EmptyPrompt'),
    test_prompt=dict(type='EmptyPrompt'),
    test_cfg=dict(scheme='osediff', color_fix='adain'),  # scheme='windows' bounds the memory of large images
)
