"""The official config on a converted checkpoint of random weights gives the labels of the released segmentor's pass."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoint_layouts import drawer, others, projection_keys, segmentor_base_keys
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from PIL import Image
from published_head import head_shapes
from released_pass import ReleasedPass

import rass_mm
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.diffusion.text import load_text_model
from rass_mm.errors import DataError
from rass_mm_cli.main import main

SIZES = {
    '512x683': (512, 683),
    '480x360': (360, 480),
    '171x128': (128, 171),
    '1000x750': (1000, 750),
    '2100x500': (500, 2100),
}
"""Name -> (height, width)."""
EQUAL = 0.9999
NARROW = """
attention = dict(embed_dims=64, num_heads=4)
ffn = dict(embed_dims=64, feedforward_channels=128)
model = dict(
    backbone=dict(expect=dict(_delete_=True)),
    neck=dict(out_channels=64, width=32, num_groups=8),
    decode_head=dict(
        in_channels=[64] * 4,
        feat_channels=64,
        out_channels=64,
        pixel_decoder=dict(
            encoder=dict(num_layers=2, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=ffn)),
            positional_encoding=dict(num_feats=32),
        ),
        positional_encoding=dict(num_feats=32),
        transformer_decoder=dict(
            num_layers=3, layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention, ffn_cfg=ffn)
        ),
    ),
)
"""
HEADS = {
    'sd-tiny': {'inputs': 64, 'width': 64, 'encoder_ffn': 128, 'decoder_ffn': 128, 'heads': 4, 'layers': (2, 3)},
    'sd21-base': {'inputs': 512, 'width': 256, 'encoder_ffn': 1024, 'decoder_ffn': 2048, 'heads': 8, 'layers': (6, 9)},
}
GROUPS = {'sd-tiny': 8, 'sd21-base': 32}
RAM = '''
"""A stand-in for RAM whose tags hang on small differences of its input."""
import torch
from torch import nn

WORDS = ['sky', 'tree', 'road', "mother's day", 'car', 'grass', 'water', 'wall', 'floor', 'lamp', 'sea', 'person']


def tags_of(image):
    means = nn.functional.adaptive_avg_pool2d(image.float(), 3).flatten(1)
    return [' | '.join(WORDS[int(value * 400) % len(WORDS)] for value in row) for row in means]


class RAM(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def generate_tag(self, image):
        return tags_of(image), None


def ram(pretrained='', image_size=384, vit='swin_l'):
    return RAM()
'''


def photo(height, width, seed):
    """(H, W, 3) uint8: soft patches of colour under noise."""
    rng = np.random.default_rng(seed)
    coarse = (rng.random((height // 40 + 2, width // 40 + 2, 3)) * 255).astype(np.uint8)
    soft = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    return (soft + rng.normal(0, 4, soft.shape)).clip(0, 255).astype(np.uint8)


def published_tensors(layout, base, config):
    """rass.pth with random values, drawn so that many queries, masks and classes take part in the result."""
    draw, found = drawer(5, 0.8 / HEADS[layout]['width'] ** 0.5), read_base(base)
    models = {'unet': load_unet(found), 'vae': load_vae(found, decoder=True), 'text_encoder': load_text_model(found)}
    init_default_scope('mmseg')
    model = Config.fromfile(str(config)).model
    model.backbone.base, model.prompt = str(base), {'type': 'EmptyPrompt'}
    with torch.device('meta'):
        neck = MODELS.build(model).neck
    shapes = head_shapes(**HEADS[layout], queries=100, classes=150)
    head = {
        key: draw(*shape) + (1.0 if 'norm' in key and key.endswith('weight') else 0) for key, shape in shapes.items()
    }
    predictor = 'sem_seg_head.predictor.'
    for name, factor in (('class_embed', 8), ('query_feat', 40), ('query_embed', 40)):
        head[f'{predictor}{name}.weight'] *= factor
    for index in range(3):
        head[f'{predictor}mask_embed.layers.{index}.weight'] *= 1.5
    for name in [name for name in head if name.endswith('multihead_attn.out_proj.weight')]:
        head[name] *= 0.2  # one masked token more or less, a matter of rounding, must not change a whole query
    for name in (f'{predictor}decoder_norm.bias', 'sem_seg_head.pixel_decoder.mask_features.bias'):
        head[name] *= 0
    return {**projection_keys(neck, draw), **segmentor_base_keys(models, draw), **head, **others(draw)}


def balance(tensors, reference, images):
    """Lowers the score of every class that wins a third of an image, so that labels are worth comparing."""
    stages, head = [], reference.head
    reference.head = lambda levels: (made := head(levels), stages.append(made[-1]))[0]
    for image in images:
        reference(image)
    reference.head = head
    bias = tensors['sem_seg_head.predictor.class_embed.bias']
    before = bias.clone()
    for _ in range(100):
        shift = bias - before
        won = torch.zeros(150)
        for scores, masks, _ in stages:
            logits = torch.einsum('bqc,bqhw->bchw', (scores + shift).softmax(-1)[..., :-1], masks.sigmoid())
            won = won.maximum(logits.argmax(1).flatten().bincount(minlength=150) / logits[0, 0].numel())
        bias[:-1] -= 0.3 * (won > 1 / 3)


def prepare(folder, layout, names=tuple(SIZES)):
    """A converted checkpoint, its config, the images and the reference pass of one layout."""
    base, config = folder / 'base', folder / 'official.py'
    write_random_base(base, layout, half=False)
    (folder / 'ram' / 'models').mkdir(parents=True)
    (folder / 'ram' / 'models' / 'ram.py').write_text(RAM)
    torch.save({'model': {'x': torch.zeros(1)}}, folder / 'ram.pth')
    tagger = f"model['prompt'] = dict(tagger=dict(weights='{folder}/ram.pth', cache='{folder}/cache'))\n"
    official = rass_mm.config_path('rass/rass_ade20k_lq_official.py')
    narrow = NARROW if layout == 'sd-tiny' else 'model = dict()'
    config.write_text(f"_base_ = ['{official}']\n{narrow}\n{tagger}")
    from ram.models.ram import tags_of

    tensors = published_tensors(layout, base, config)
    options = (base, lambda image: tags_of(image)[0].split(' | '), HEADS[layout]['heads'], GROUPS[layout])
    images = {name: photo(*SIZES[name], seed) for seed, name in enumerate(names)}
    reference = ReleasedPass(tensors, *options)
    balance(tensors, reference, images.values())
    torch.save({'model': tensors}, folder / 'rass.pth')
    arguments = (folder / 'rass.pth', folder / 'out', '--base', base, '--config', config)
    assert main(['convert', *map(str, arguments)]) == 0
    return SimpleNamespace(
        folder=folder, config=config, images=images, reference=reference, checkpoint=folder / 'out' / 'rass.safetensors'
    )


@pytest.fixture(scope='module')
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp('released')
    sys.path.insert(0, str(folder))
    yield prepare(folder, 'sd-tiny')
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.partition('.')[0] == 'ram']:
        del sys.modules[name]


@pytest.fixture(scope='module')
def expected(released):
    """Image name -> labels of the reference pass, with the latent's mode."""
    return {name: released.reference(image)[0] for name, image in released.images.items()}


def built(released, **options):
    """(pipeline, model) of the official config with some options changed."""
    init_default_scope('mmseg')
    config = Config.fromfile(str(released.config))
    config.merge_from_dict({'model.backbone.base': str(released.folder / 'out' / 'base'), **options})
    model = MODELS.build(config.model).eval()
    load_checkpoint(model, str(released.checkpoint), map_location='cpu', strict=True)
    return Compose([step for step in config.test_pipeline if step.type != 'LoadLabelStrict']), model


def labels(released, name, pipeline, model):
    path = released.folder / f'{name}.png'
    Image.fromarray(released.images[name]).save(path)
    sample = pipeline({'img_path': str(path), 'reduce_zero_label': True, 'seg_fields': []})
    batch = {key: [value] for key, value in sample.items()}
    return model.test_step(batch)[0].pred_sem_seg.data[0].numpy()


def share(one, other):
    return (one == other).mean()


def test_reference_labels_are_worth_comparing(expected):
    for name, found in expected.items():
        assert found.shape == SIZES[name]
        counts = np.bincount(found.ravel())
        assert np.count_nonzero(counts) >= 10 and counts.max() <= found.size / 2, (name, counts)


def test_command_gives_the_released_labels(released, expected, tmp_path):
    images, annotations = (tmp_path / name / 'validation' for name in ('images_lq', 'annotations'))
    for folder in (images, annotations):
        folder.mkdir(parents=True)
    truth = {}
    for seed, (name, image) in enumerate(released.images.items()):
        Image.fromarray(image).save(images / f'{name}.png')
        coarse = np.random.default_rng(seed).integers(0, 61, (5, 6), dtype=np.uint8)  # 60 of 150 classes, and 0
        truth[name] = np.asarray(Image.fromarray(coarse).resize(image.shape[1::-1], Image.Resampling.NEAREST))
        Image.fromarray(truth[name]).save(annotations / f'{name}.png')
    loader = {'dataset.data_root': tmp_path, 'num_workers': 0, 'persistent_workers': False}
    options = {f'test_dataloader.{key}': value for key, value in loader.items()}
    options |= {'model.backbone.base': released.folder / 'out' / 'base', 'work_dir': tmp_path / 'work'}
    given = [f'{key}={value}' for key, value in options.items()]
    command = ['test', released.config, released.checkpoint, '--out', tmp_path / 'out', '--cfg-options', *given]
    assert main([*map(str, command)]) == 0
    for name, labels_ in expected.items():
        written = np.asarray(Image.open(tmp_path / 'out' / f'{name}.png'))
        assert share(written, labels_ + 1) >= EQUAL, name  # files hold ADE20K's ids, from 1


@pytest.mark.parametrize('name', ['512x683', '171x128'])
def test_drawn_latents_are_the_released_ones(released, expected, name):
    options = {'model.backbone.sample_latent': True, 'model.test_cfg.window_batch': 1}
    pipeline, model = built(released, **options)
    torch.manual_seed(3)
    drawn = released.reference(released.images[name], drawn=True)[0]
    torch.manual_seed(3)
    assert share(labels(released, name, pipeline, model), drawn) >= EQUAL
    assert share(drawn, expected[name]) < EQUAL


SWITCHES = {
    'padding to 64': ('512x683', {'model.data_preprocessor.test_cfg.size_divisor': 64}),
    'grey padding': ('512x683', {'model.data_preprocessor.raw_pad_val': 127.5}),
    'commas in the prompt': ('512x683', {'model.prompt.style': 'commas'}),
    "OpenCV's resize": ('1000x750', {'test_pipeline.1.backend': 'cv2'}),
    'RAM without padding': ('512x683', {'model.prompt.tagger.padding': False}),
    'RAM with antialias': ('1000x750', {'model.prompt.tagger.antialias': True}),
    'logits of windows': (
        '512x683',
        {'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': (512, 512), 'model.test_cfg.stride': (512, 512)},
    ),
    'one window': ('512x683', {'model.test_cfg.mode': 'whole'}),
}


@pytest.mark.slow
@pytest.mark.parametrize('switch', SWITCHES)
def test_each_switch_counts(released, expected, switch):
    name, options = SWITCHES[switch]
    assert share(labels(released, name, *built(released, **options)), expected[name]) < EQUAL


def test_odd_windows_need_their_switch(released):
    with pytest.raises(DataError, match='multiples of 64'):
        labels(released, '2100x500', *built(released, **{'model.backbone.resize_features': False}))


@pytest.mark.slow
def test_full_widths(tmp_path, monkeypatch):
    """Stable Diffusion 2.1's widths and the whole head; every other pixel must be within 1e-4 of a tie."""
    monkeypatch.syspath_prepend(tmp_path)
    full = prepare(tmp_path, 'sd21-base', ['512x683'])
    wanted, best = full.reference(full.images['512x683'])
    found = labels(full, '512x683', *built(full))
    different = found != wanted
    margin = (best[0] - best[1])[different].max(initial=0)
    print(f'equal: {1 - different.mean():.6f}, largest margin of the others: {margin:.1e}')
    assert different.mean() <= 0.0005 or margin < 1e-4
    counts = np.bincount(wanted.ravel())
    assert np.count_nonzero(counts) >= 10 and counts.max() <= wanted.size / 2
