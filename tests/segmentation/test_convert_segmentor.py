"""RASS's published layout: every key's place, and the converted model against independent arithmetic."""

import json
import re
import shutil

import pytest
import torch
import torch.nn.functional as F
from checkpoint_layouts import FEATURES, drawer, others, projection_keys, restorer_file, segmentor_base_keys
from commands import SHARED
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.apis import init_model
from mmseg.registry import MODELS
from published_head import PublishedHead, head_shapes, projected

import rass_mm
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae, models_on_meta
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.diffusion.text import load_text_model
from rass_mm.engine.trained_state import read_provenance
from rass_mm.published.convert import convert
from rass_mm.published.segmentor import head_name, map_segmentor
from rass_mm_cli.main import main

LAYOUT = SHARED / 'data' / 'published_layouts' / 'rass_pth.json'
CONFIG = """
_base_ = ['{path}']
model = dict(backbone=dict(adapter=dict(rank={rank}, alpha=8)), test_cfg=dict(mode='stitched'))
"""
HEAD = {'inputs': 64, 'width': 64, 'encoder_ffn': 128, 'decoder_ffn': 128, 'heads': 4, 'layers': (2, 3)}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    path = rass_mm.config_path('rass/rass_scenes_tiny_mask2former.py')
    file = tmp_path_factory.mktemp('configs') / 'released_tiny.py'
    file.write_text(CONFIG.format(path=path, rank=4))
    return file


def build(config, base):
    init_default_scope('mmseg')
    config = Config.fromfile(str(config))
    config.model.backbone.base = str(base)
    return MODELS.build(config.model)


@pytest.fixture(scope='module')
def content(config, tiny_base, other_base):
    """A rass.pth of tiny shapes. Its base is `other_base`, so that a result built on `tiny_base` would be wrong."""
    base, draw = read_base(other_base), drawer(5, 0.1)
    models = {'unet': load_unet(base), 'vae': load_vae(base, decoder=True), 'text_encoder': load_text_model(base)}
    head = head_shapes(**HEAD, queries=30, classes=12)
    model = {
        **projection_keys(build(config, tiny_base).neck, draw),
        **segmentor_base_keys(models, draw),
        **{key: draw(*shape) + (1.0 if 'norm' in key and key.endswith('weight') else 0) for key, shape in head.items()},
        **others(draw),
    }
    return {'model': model, 'trainer': {'iteration': 5, 'optimizer': {'state': {0: torch.ones(2)}}}, 'iteration': 5}


@pytest.fixture(scope='module')
def converted(content, config, tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp('published')
    torch.save(content, folder / 'rass.pth')
    status = main(
        ['convert', *map(str, (folder / 'rass.pth', folder / 'out', '--base', tiny_base, '--config', config))]
    )
    assert status == 0
    return folder / 'out'


def test_every_tensor_is_used_or_listed(content, converted):
    report = json.loads((converted / 'conversion.json').read_text())
    left_out = set(report['left_out'])
    assert set(report['used']) | {key for key in left_out if key in content['model']} == set(content['model'])
    assert not set(report['used']) & left_out
    beside = {key for key in left_out if key not in content['model']}
    assert beside == {'trainer/optimizer/state/0'}
    assert all(re.search(r'ram\.|dape\.|jpeger|criterion', key) for key in left_out - beside)
    record = read_provenance(load_state(converted)['_extra_state'])
    assert record['source']['file'] == 'rass.pth' and record['merged_adapters'] == []
    assert [(term['kind'], term['licence']) for term in record['terms']] == [
        (kind, 'not stated') for kind in ('base', 'weights')
    ]


def load_state(converted):
    from safetensors.torch import load_file

    return load_file(converted / 'rass.safetensors')


def merged_unet(content, base):
    """The released UNet by hand: base_layer + (8 / 4) B A."""
    unet, start = load_unet(read_base(base)), f'{FEATURES}sd.unet.'
    own = {key.removeprefix(start): value for key, value in content['model'].items() if key.startswith(start)}
    state = {key.replace('.base_layer.', '.'): value.double() for key, value in own.items() if '.lora_' not in key}
    for key, a in own.items():
        if '.lora_A.' in key:
            layer, b = key.split('.lora_A.')[0], own[key.replace('.lora_A.', '.lora_B.')]
            update = (b.double().flatten(1) @ a.double().flatten(1)).reshape(state[f'{layer}.weight'].shape)
            state[f'{layer}.weight'] = state[f'{layer}.weight'] + 2 * update
    unet.load_state_dict({key: value.float() for key, value in state.items()})
    return unet


def raw_features(unet, vae, images, context, scale):
    found = {}
    places = {f'vae.{i}': vae.encoder.down_blocks[i] for i in (1, 2)} | {'mid': unet.mid_block}
    places |= {f'up.{i}': unet.up_blocks[i] for i in range(4)}
    for name, module in places.items():
        module.register_forward_hook(lambda _m, _i, output, name=name: found.update({name: output}))
    latent = vae.encode(images).latent_dist.mode() * scale
    unet(latent, 1, encoder_hidden_states=context)
    return [found[name] for name in places]


@torch.no_grad()
def test_converted_model_equals_independent_arithmetic(content, converted, config, other_base):
    model = build(config, converted / 'base').eval()
    load_checkpoint(model, str(converted / 'rass.safetensors'), map_location='cpu', strict=True)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    prompt = model.prompt(images)
    base = read_base(other_base)
    vae = load_vae(base, decoder=True)
    features = raw_features(merged_unet(content, other_base), vae, images, prompt.context, base.scaling_factor)
    ours = model.backbone(images, prompt.context)
    for own, other in zip(ours, features, strict=True):
        assert (own - other).abs().max() < 1e-4 * max(1, other.abs().max())
    strides = model.backbone.strides
    levels = projected(features, content['model'], FEATURES, strides, model.neck.in_strides, groups=8)
    for own, other in zip(model.neck(ours), levels, strict=True):
        assert (own - other).abs().max() < 1e-4 * max(1, other.abs().max())
    stages = PublishedHead(content['model'], heads=4)(levels)
    scores, masks = model.decode_head(levels, [None] * 2)
    assert len(stages) == len(scores) == 4
    for (score, mask, _), own_score, own_mask in zip(stages, scores, masks, strict=True):
        assert (own_score - score).abs().max() < 1e-4 * max(1, score.abs().max())
        assert (own_mask - mask).abs().max() < 1e-4 * max(1, mask.abs().max())
    upsampled = F.interpolate(stages[-1][1], images.shape[2:], mode='bilinear', align_corners=False).sigmoid()
    semantic = torch.einsum('bqc,bqhw->bchw', stages[-1][0].softmax(-1)[..., :-1], upsampled)
    model.test_cfg.mode = 'whole'
    assert (model.inference(images, [{}] * 2) - semantic).abs().max() < 1e-4 * max(1, semantic.abs().max())


@torch.no_grad()
def test_wrong_orders_would_be_seen(content):
    """The comparison above has teeth: exchanging what shapes cannot tell apart changes the result."""
    features = [
        torch.randn(1, 64, 96 // s, 64 // s, generator=torch.Generator().manual_seed(s)) for s in (4, 8, 16, 32)
    ]
    right = PublishedHead(content['model'], heads=4)(features)[-1][1]
    for one, other in (
        ('sem_seg_head.pixel_decoder.input_proj.0.0.weight', 'sem_seg_head.pixel_decoder.input_proj.2.0.weight'),
        ('sem_seg_head.predictor.query_feat.weight', 'sem_seg_head.predictor.query_embed.weight'),
        (
            'sem_seg_head.predictor.transformer_cross_attention_layers.0.norm.weight',
            'sem_seg_head.predictor.transformer_self_attention_layers.0.norm.weight',
        ),
    ):
        swapped = {**content['model'], one: content['model'][other], other: content['model'][one]}
        assert (PublishedHead(swapped, heads=4)(features)[-1][1] - right).abs().max() > 1e-2


def test_another_base_than_the_converted_one_is_refused(converted, config, tiny_base):
    model = build(config, tiny_base)
    with pytest.raises(rass_mm.errors.CheckpointError, match='another base'):
        load_checkpoint(model, str(converted / 'rass.safetensors'))


def test_every_head_key_at_full_size(tmp_path):
    """292 keys, one to one, of the right shape; the listing itself is checked where the published layout is here."""
    write_random_base(tmp_path / 'base', 'sd21-base', weights=False)
    init_default_scope('mmseg')
    full = {'inputs': 512, 'width': 256, 'encoder_ffn': 1024, 'decoder_ffn': 2048, 'heads': 8, 'layers': (6, 9)}
    shapes = head_shapes(**full, queries=100, classes=150)
    config = Config.fromfile(str(rass_mm.config_path('rass/rass_ade20k_lq_official.py')))
    config.model.backbone.base, config.model.prompt = str(tmp_path / 'base'), {'type': 'EmptyPrompt'}
    base = read_base(tmp_path / 'base')
    base.configs['text_encoder']['vocab_size'] = 49408  # a random base has a small vocabulary
    with torch.device('meta'):
        model = MODELS.build(config.model)
        models = {**models_on_meta(base), 'text_encoder': load_text_model(base)}
        published = {
            **projection_keys(model.neck, torch.empty),
            **segmentor_base_keys(models, torch.empty),
            **{key: torch.empty(shape) for key, shape in shapes.items()},
        }
        mapped = map_segmentor(published, models['unet'])
    own = {key: tuple(value.shape) for key, value in model.state_dict().items() if key != '_extra_state'}
    assert {key: tuple(value.shape) for key, value in mapped.trained.items()} == own
    names = [head_name(key.removeprefix('sem_seg_head.')) for key in shapes]
    assert len(names) == len(set(names)) == 292
    assert sum(value.numel() for value in mapped.trained.values()) == 27_905_063
    for part in ('unet', 'vae'):
        expected = {key: value.shape for key, value in models[part].state_dict().items()}
        assert {key: value.shape for key, value in mapped.base[part].items()} == expected
    if not LAYOUT.is_file():
        pytest.skip('the published layout (shared data) is not here')
    layout = json.loads(LAYOUT.read_text())
    listed = {key: tuple(record['shape']) for key, record in layout['tensors'].items()}
    extra = {key for key in listed if key.startswith(('backbone.jpeger.', 'criterion.'))}
    assert {key: tuple(value.shape) for key, value in published.items()} == {
        key: shape for key, shape in listed.items() if key not in extra
    }
    rows = next(note['rows'] for note in layout['notes'] if isinstance(note, dict) and 'rows' in note)
    assert {key: head_name(key.removeprefix('sem_seg_head.')) for key in shapes} == {row[0]: row[1] for row in rows}


def changed(content, change):
    model = dict(content['model'])
    change(model)
    return {**content, 'model': model}


BROKEN = {
    'homeless': (lambda m: m.update({'sem_seg_head.pixel_decoder.new.weight': torch.ones(1)}), 'have no counterpart'),
    'missing head tensor': (
        lambda m: m.pop('sem_seg_head.predictor.query_feat.weight'),
        '1 missing: decode_head.query_feat.weight',
    ),
    'misshapen': (
        lambda m: m.update({'sem_seg_head.predictor.class_embed.bias': torch.ones(151)}),
        r'of another shape: decode_head.cls_embed.bias \(151,\) instead of \(13,\)',
    ),
    'part of the vae': (lambda m: m.pop(f'{FEATURES}sd.vae.quant_conv.weight'), 'vae in the file does not fit'),
    'not finite': (
        lambda m: m.update({'sem_seg_head.predictor.query_feat.weight': torch.full((30, 64), torch.nan)}),
        'decode_head.query_feat.weight contains NaN or infinity',
    ),
    'no merged unet': (
        lambda m: [m.pop(key) for key in list(m) if '.sd.unet.' in key and 'lora_' not in key and 'conv_in' not in key],
        '--scr-adapter',
    ),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_files_are_clear_errors(content, config, tiny_base, tmp_path, capsys, name):
    change, message = BROKEN[name]
    torch.save(changed(content, change), tmp_path / 'rass.pth')
    arguments = (tmp_path / 'rass.pth', tmp_path / 'out', '--base', tiny_base, '--config', config)
    assert main(['convert', *map(str, arguments)]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ['rass.pth']


def test_config_of_another_rank_is_refused(content, tiny_base, tmp_path, capsys):
    (tmp_path / 'c.py').write_text(
        CONFIG.format(path=rass_mm.config_path('rass/rass_scenes_tiny_mask2former.py'), rank=8)
    )
    torch.save(content, tmp_path / 'rass.pth')
    arguments = (tmp_path / 'rass.pth', tmp_path / 'out', '--base', tiny_base, '--config', tmp_path / 'c.py')
    assert main(['convert', *map(str, arguments)]) == 1
    assert re.search('rank 8 and alpha 8.*but the file has rank 4', capsys.readouterr().err)


def converted_command(content, tmp_path, base, config, *options):
    torch.save(content, tmp_path / 'rass.pth')
    return main(
        ['convert', *map(str, (tmp_path / 'rass.pth', tmp_path / 'out', '--base', base, '--config', config, *options))]
    )


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('baselines/resnet_scenes_tiny.py', 'has a model of type EncoderDecoder'),
        ('scr/scr_scenes_tiny.py', 'has a model of type mmagic.SCR'),
    ],
)
def test_config_of_another_model_is_refused(content, tiny_base, tmp_path, capsys, name, message):
    if name.startswith('scr/'):
        pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    assert converted_command(content, tmp_path, tiny_base, name) == 1
    assert message in capsys.readouterr().err


def test_file_without_the_merged_unet_names_the_restorer(content, config, tiny_base, other_base, tmp_path, capsys):
    torch.save(restorer_file(load_unet(read_base(tiny_base))), tmp_path / 'scr.pkl')
    convert(tmp_path / 'scr.pkl', tmp_path / 'scr.safetensors', tiny_base, build=None)
    kept = {
        key: value
        for key, value in content['model'].items()
        if '.sd.' not in key or '.lora_' in key or 'conv_in.base_layer' in key
    }
    scr = ('--scr-adapter', tmp_path / 'scr.safetensors')
    assert converted_command({'model': kept}, tmp_path, other_base, config, *scr) == 1
    assert 'another base' in capsys.readouterr().err
    assert converted_command({'model': kept}, tmp_path, tiny_base, config, *scr) == 0
    changed_config = Config.fromfile(str(config))
    changed_config.model.backbone.update(base=str(tmp_path / 'out' / 'base'), scr_adapter=str(scr[1]))
    model = MODELS.build(changed_config.model)
    load_checkpoint(model, str(tmp_path / 'out' / 'rass.safetensors'), strict=True)
    place = 'mid_block.resnets.0.conv1.lora_A'
    published = kept[f'{FEATURES}sd.unet.{place}.default_others_s2.weight']
    assert torch.equal(model.backbone.extractor.unet.get_submodule(place)['seg'].weight, published)
    report = json.loads((tmp_path / 'out' / 'conversion.json').read_text())
    assert report['used'][f'{FEATURES}sd.unet.conv_in.base_layer.weight'].startswith('backbone.extractor.unet.conv_in')


def test_restorer_beside_a_whole_file_is_refused(content, config, tiny_base, tmp_path, capsys):
    assert converted_command(content, tmp_path, tiny_base, config, '--scr-adapter', 'any.safetensors') == 1
    assert 'Remove --scr-adapter' in capsys.readouterr().err


def test_half_precision_shared_tensors_and_a_sharded_base(content, config, other_base, tmp_path):
    base = shutil.copytree(other_base, tmp_path / 'sharded')
    (base / 'unet' / 'diffusion_pytorch_model.safetensors').unlink()
    load_unet(read_base(other_base)).save_pretrained(base / 'unet', max_shard_size='200KB')
    assert (base / 'unet' / 'diffusion_pytorch_model.safetensors.index.json').is_file()
    model = {key: value.half() if value.is_floating_point() else value for key, value in content['model'].items()}
    first, second = (f'{FEATURES}sd.unet.mid_block.resnets.{i}.norm1.weight' for i in (0, 1))
    model[second] = model[first]
    assert converted_command({'model': model}, tmp_path, base, config) == 0
    built = build(config, tmp_path / 'out' / 'base')
    load_checkpoint(built, str(tmp_path / 'out' / 'rass.safetensors'), strict=True)
    unet = built.backbone.extractor.unet
    assert torch.equal(unet.mid_block.resnets[0].norm1.weight, unet.mid_block.resnets[1].norm1.weight)


def test_mmsegs_own_loading_takes_a_converted_checkpoint(converted, config, tmp_path):
    given = Config.fromfile(str(config))
    given.model.backbone.base = str(converted / 'base')
    given.dump(str(tmp_path / 'whole.py'))
    model = init_model(str(tmp_path / 'whole.py'), str(converted / 'rass.safetensors'), device='cpu')
    assert list(model.dataset_meta['classes']) == model.classes and len(model.classes) == 12


def test_stripped_file_takes_what_it_lacks_from_the_base(content, config, other_base, tmp_path, capsys):
    kept = {
        key: value for key, value in content['model'].items() if '.sd.vae.' not in key and '.text_encoder.' not in key
    }
    torch.save({'model': kept}, tmp_path / 'rass.pth')
    arguments = (tmp_path / 'rass.pth', tmp_path / 'out', '--base', other_base, '--config', config)
    assert main(['convert', *map(str, arguments)]) == 0
    assert 'base/vae: not in the file' in capsys.readouterr().out
    base = read_base(tmp_path / 'out' / 'base')
    expected = load_vae(read_base(other_base)).quant_conv.weight
    assert torch.equal(load_vae(base).quant_conv.weight, expected)
    model = build(config, tmp_path / 'out' / 'base')
    load_checkpoint(model, str(tmp_path / 'out' / 'rass.safetensors'), strict=True)


KEPT = {
    'whole': (None, None),
    'a changed part': (
        lambda out: (out / 'base' / 'vae' / 'config.json').open('a').write(' '),
        'config.json was changed',
    ),
    'a missing part': (lambda out: (out / 'base' / 'model_index.json').unlink(), 'model_index.json is missing'),
    'another config': (None, 'class names of another --config'),
}


@pytest.mark.parametrize('name', KEPT)
def test_a_kept_folder_is_the_one_that_the_conversion_writes(converted, config, tiny_base, tmp_path, capsys, name):
    change, message = KEPT[name]
    shutil.copytree(converted.parent, tmp_path / 'again')
    if change:
        change(tmp_path / 'again' / 'out')
    if name == 'another config':
        text = config.read_text().replace('model = dict(', f'model = dict(classes={list("abcdefghijkl")}, ')
        config = tmp_path / 'classes.py'
        config.write_text(text)
    places = (tmp_path / 'again' / 'rass.pth', tmp_path / 'again' / 'out', '--base', tiny_base, '--config', config)
    assert main(['convert', *map(str, places)]) == (1 if message else 0)
    assert message is None or message in capsys.readouterr().err


def test_a_folder_of_an_earlier_version_is_kept(converted, config, tiny_base, tmp_path, caplog):
    shutil.copytree(converted.parent, tmp_path / 'again')
    report = tmp_path / 'again' / 'out' / 'conversion.json'
    record = json.loads(report.read_text())
    assert set(record.pop('files')) >= {'rass.safetensors', 'base/model_index.json'}
    report.write_text(json.dumps(record))
    places = (tmp_path / 'again' / 'rass.pth', tmp_path / 'again' / 'out', '--base', tiny_base, '--config', config)
    assert main(['convert', *map(str, places)]) == 0
    assert 'no hashes of its files' in caplog.text
