"""Conversion of OSEDiff's and SCR's layouts compared with W + (8 / r) B A, and clear errors for broken files."""

import copy
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoint_layouts import drawer, restorer_file, unet_groups
from commands import SHARED, warm
from mmengine.logging.history_buffer import HistoryBuffer

from rass_mm.diffusion import adapter_files
from rass_mm.diffusion.adapter_files import read_adapter
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae, models_on_meta
from rass_mm.diffusion.extractor import DiffusionExtractor
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.diffusion.one_step import cumulated_alphas
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.diffusion.text import TextEncoder
from rass_mm.engine.checkpoints import load_local
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.published import convert as convert_module
from rass_mm.published.convert import convert as convert_file
from rass_mm.published.restorers import map_restorer
from rass_mm.segmentation.backbone import DiffusionBackbone
from rass_mm_cli.main import main

LAYOUTS = SHARED / 'data' / 'published_layouts'


@pytest.fixture(scope='module')
def parts(tiny_base):
    base = read_base(tiny_base)
    return {'unet': load_unet(base), 'vae': load_vae(base, decoder=True)}


@pytest.fixture(scope='module')
def contents(parts):
    return {
        'osediff': restorer_file(parts['unet'], parts['vae']),
        'scr': restorer_file(parts['unet'], rank=4, conv_out=False, draw=drawer(1)),
        'scr_rank6': restorer_file(parts['unet'], rank=6, draw=drawer(2)),
    }


@pytest.fixture
def convert(capsys):
    """Function that runs `rass-mm convert` with (source, out, base, *options) and returns status, output and errors."""

    def run(source, out, base, *options):
        status = main(['convert', *(str(part) for part in (source, out, '--base', base, *options))])
        streams = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=streams.out, stderr=streams.err)

    return run


def updated(model, tensors):
    """Computes the network state with W + (8 / r) B A in float64 and the full conv_in."""
    state = {key: value.double().clone() for key, value in model.state_dict().items()}
    for key, a in tensors.items():
        if '.lora_A.' in key:
            b = tensors[key.replace('.lora_A.', '.lora_B.')].double()
            layer, rank = key.split('.lora_A.')[0], len(a)
            if layer == 'conv_in':
                state['conv_in.weight'] = tensors['conv_in.base_layer.weight'].double()
                state['conv_in.bias'] = tensors['conv_in.base_layer.bias'].double()
            update = (b.flatten(1) @ a.double().flatten(1)).reshape(state[f'{layer}.weight'].shape)
            state[f'{layer}.weight'] = state[f'{layer}.weight'] + 8 / rank * update
    return {key: value.float() for key, value in state.items()}


def reference(content, tiny_base, images):
    """Computes the published procedure with diffusers modules: encode, one UNet call, one step, decode."""
    base = read_base(tiny_base)
    unet, vae = load_unet(base), load_vae(base, decoder=True)
    unet.load_state_dict(updated(unet, content['state_dict_unet']))
    is_osediff = 'state_dict_vae' in content
    if is_osediff:
        vae.load_state_dict(updated(vae, content['state_dict_vae']))
    context = TextEncoder(base).encode_texts([''])[0].expand(len(images), -1, -1)
    with torch.no_grad():
        latent = vae.encode(images).latent_dist.mode() * base.scaling_factor
        timestep = 999 if is_osediff else 1
        noise = unet(latent, timestep, encoder_hidden_states=context).sample
        if is_osediff:
            alpha = cumulated_alphas(base.configs['scheduler'])[999]
            latent = (latent - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        else:
            latent = latent - noise
        return vae.decode(latent / base.scaling_factor).sample


@pytest.mark.parametrize('name', ['osediff', 'scr', 'scr_rank6'])
def test_converted_restorer_equals_the_formula(convert, contents, parts, tiny_base, tmp_path, name):
    content = contents[name]
    torch.save(content, tmp_path / 'published.pkl')
    done = convert(tmp_path / 'published.pkl', tmp_path / 'out.safetensors', tiny_base)
    assert done.returncode == 0, done.stderr
    restorer = load_restorer(tmp_path / 'out.safetensors', tiny_base)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    with torch.no_grad():
        prompt = restorer.prompt(images)
        ours = restorer.model(images, prompt.context)
        plain = load_restorer_of_base(tiny_base, images, prompt.context)
    expected = reference(content, tiny_base, images)
    assert (ours - expected).abs().max() < 1e-4 * max(1, expected.abs().max())
    assert (expected - plain).abs().max() > 0.01  # the adapter has an effect
    adapter = read_adapter(tmp_path / 'out.safetensors')
    header, tensors = adapter.header, adapter.tensors
    assert header['rank'] == (6 if 'rank6' in name else 4) and header['alpha'] == 8
    assert header['source']['file'] == 'published.pkl' and len(header['source']['sha256']) == 64
    report = json.loads((tmp_path / 'out.conversion.json').read_text())
    published = {f'{entry}/{key}' for entry in content if entry.startswith('state_dict') for key in content[entry]}
    assert set(report['used']) == published and not report['left_out']
    assert set(report['used'].values()) == set(tensors)


def load_restorer_of_base(tiny_base, images, context):
    base = read_base(tiny_base)
    unet, vae = load_unet(base), load_vae(base, decoder=True)
    latent = vae.encode(images).latent_dist.mode() * base.scaling_factor
    noise = unet(latent, 1, encoder_hidden_states=context).sample
    return vae.decode((latent - noise) / base.scaling_factor).sample


def test_kind_and_form_can_be_chosen_and_other_entries_are_listed(convert, contents, tiny_base, tmp_path):
    torch.save({**contents['osediff'], 'epoch': 3, 'ema': {'weight': torch.ones(2)}}, tmp_path / 'scr.pkl')
    done = convert(
        *(tmp_path / 'scr.pkl', tmp_path / 'out.safetensors', tiny_base, '--kind', 'scr', '--form', 'x0'),
    )
    assert done.returncode == 0, done.stderr
    adapter = read_adapter(tmp_path / 'out.safetensors')
    header, tensors = adapter.header, adapter.tensors
    assert 'vae' not in header and not any(key.startswith('vae.') for key in tensors)
    assert (header['recipe']['form'], header['recipe']['timestep']) == ('x0', 999)
    left_out = json.loads((tmp_path / 'out.conversion.json').read_text())['left_out']
    vae = contents['osediff']['state_dict_vae']
    assert set(left_out) == {f'state_dict_vae/{key}' for key in vae} | {'ema/weight', 'epoch (no tensors)'}
    assert f'{len(vae)}: scr does not use the entry state_dict_vae' in done.stdout


@pytest.mark.slow
def test_converted_adapter_restores_files_and_merges_into_a_segmentor(contents, tiny_base, tmp_path, scenes):
    torch.save(contents['osediff'], tmp_path / 'osediff.pkl')
    command = ('convert', tmp_path / 'osediff.pkl', tmp_path / 'o.safetensors', '--base', tiny_base)
    assert warm('-m', 'rass_mm', *command).returncode == 0
    done = warm(
        *('-m', 'rass_mm', 'restore', scenes / 'img_lq' / 'val', tmp_path / 'restored', '--base', tiny_base),
        *('--adapter', tmp_path / 'o.safetensors', '--window', '96', '--overlap', '32'),
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / 'restored').glob('*.png'))) == 4
    base = read_base(tiny_base)
    merged = DiffusionExtractor(base, merged_adapter=tmp_path / 'o.safetensors', features=['unet.up_blocks.3'])
    expected = updated(load_vae(base, decoder=True), contents['osediff']['state_dict_vae'])['quant_conv.weight']
    torch.testing.assert_close(merged.vae.quant_conv.weight, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', ['osediff', 'scr'])
def test_full_shapes_on_meta_use_every_published_tensor(tmp_path, name):
    write_random_base(tmp_path / 'base', 'sd21-base', weights=False)
    with torch.device('meta'):
        base = read_base(tmp_path / 'base')
        models = models_on_meta(base)
        content = restorer_file(models['unet'], models['vae'] if name == 'osediff' else None, draw=torch.empty)
        mapped = map_restorer(name, content, base)
    assert not mapped.left_out
    assert len(mapped.used) == len(mapped.tensors) == (582 if name == 'osediff' else 518)
    assert len(mapped.header['targets']) == 258 and mapped.header['rank'] == 4
    file = LAYOUTS / f'{name}_pkl.json'
    if not file.is_file():
        pytest.skip('the published layouts (shared data) are not here')
    layout = json.loads(file.read_text())
    shapes = {key: tuple(record['shape']) for key, record in layout['tensors'].items()}
    ours = {
        f'{entry}/{key}': tuple(value.shape)
        for entry, part in content.items()
        if entry.startswith('state_dict')
        for key, value in part.items()
    }
    assert ours == shapes and set(mapped.used) == set(shapes)
    for group, layers in unet_groups(models['unet']).items():
        assert sorted(layers) == sorted(layout['module_lists'][f'unet_lora_{group}_modules'])


def test_half_precision_parameters_and_shared_tensors_convert(contents, tiny_base, tmp_path):
    content = copy.deepcopy(contents['scr'])
    tensors = {key: torch.nn.Parameter(value.half()) for key, value in content['state_dict_unet'].items()}
    first, second = (f'mid_block.resnets.{i}.conv1.lora_A.default_others.weight' for i in (0, 1))
    tensors[second] = tensors[first]
    torch.save({**content, 'state_dict_unet': tensors}, tmp_path / 'a.pkl')
    convert_file(tmp_path / 'a.pkl', tmp_path / 'o.safetensors', tiny_base, build=None)
    converted = read_adapter(tmp_path / 'o.safetensors').tensors
    assert all(value.dtype == torch.float32 for value in converted.values())
    torch.testing.assert_close(converted['mid_block.resnets.1.conv1.lora_A.weight'], tensors[first].detach().float())


def test_the_form_of_the_file_is_kept(contents, tiny_base, tmp_path):
    torch.save(contents['osediff'], tmp_path / 'a.pkl')
    result = convert_file(tmp_path / 'a.pkl', tmp_path / 'o.safetensors', tiny_base, build=None)
    assert '--kind scr' in result.summary()
    base = read_base(tiny_base)
    found = "trained for form 'x0' at timestep 999, but this model has form 'residual' at timestep 1"
    with pytest.raises(ConfigError, match=found):
        OneStepRestorer(base, start=tmp_path / 'o.safetensors', trainable=False)
    with pytest.raises(ConfigError, match='needs a trained adapter. Set start'):
        OneStepRestorer(base, trainable=False)


def test_adapter_is_not_a_checkpoint_and_other_files_are_not_called_dangerous(contents, tiny_base, tmp_path):
    torch.save(contents['scr'], tmp_path / 'a.pkl')
    convert_file(tmp_path / 'a.pkl', tmp_path / 'o.safetensors', tiny_base, build=None)
    with pytest.raises(CheckpointError, match='is not a checkpoint.*model.backbone.scr_adapter'):
        load_local(tmp_path / 'o.safetensors')
    for text in ('version https://git-lfs.github.com/spec/v1', '<!DOCTYPE html><html></html>'):
        (tmp_path / 'page.pkl').write_text(text)
        with pytest.raises(CheckpointError, match='is not a PyTorch checkpoint.*web page or a Git LFS pointer'):
            convert_file(tmp_path / 'page.pkl', tmp_path / 'p.safetensors', tiny_base, build=None)


class Evil:
    def __reduce__(self):
        return os.system, ('touch pwned',)


@pytest.mark.parametrize('name', ['osediff', 'scr', 'rass'])
@pytest.mark.parametrize('plain', [False, True])
def test_malicious_pickle_is_refused_by_name(convert, contents, tiny_base, tmp_path, monkeypatch, name, plain):
    content = dict(contents.get(name) or {'model': {'sem_seg_head.x': torch.ones(1)}})
    content['extra'] = Evil()
    file = tmp_path / f'{name}.pkl'
    if plain:
        file.write_bytes(
            pickle.dumps({key: None if key.startswith('state') else value for key, value in content.items()})
        )
    else:
        torch.save(content, file)
    monkeypatch.chdir(tmp_path)  # where the code in the file would write
    done = convert(file, 'out.safetensors', tiny_base)
    assert done.returncode == 1 and 'was not loaded' in done.stderr and 'posix.system' in done.stderr, done.stderr
    assert not (tmp_path / 'pwned').exists() and not list(tmp_path.glob('out*'))


def test_training_state_objects_are_not_allowed_either(convert, contents, tiny_base, tmp_path):
    torch.save({**contents['scr'], 'log': HistoryBuffer([1.0], [1])}, tmp_path / 'a.pkl')
    done = convert(tmp_path / 'a.pkl', tmp_path / 'out.safetensors', tiny_base)
    assert done.returncode == 1 and 'HistoryBuffer' in done.stderr


def broken(contents, change, name='scr'):
    content = {key: dict(value) if isinstance(value, dict) else value for key, value in contents[name].items()}
    change(content)
    return content


def drop(entry, key):
    return lambda content: content[entry].pop(key)


PAIR = 'mid_block.resnets.0.conv1.lora_{}.default_others.weight'
BROKEN = {
    'half a pair': (drop('state_dict_unet', PAIR.format('B')), 'no lora_B tensor'),
    'no conv_in': (drop('state_dict_unet', 'conv_in.base_layer.bias'), 'conv_in.base_layer.bias'),
    'wrong declared rank': (lambda c: c.update(rank_unet=8), 'declares rank 8.*have rank 4'),
    'mixed ranks': (
        lambda c: c['state_dict_unet'].update({PAIR.format('A'): torch.ones(5, 96, 3, 3)}),
        'different ranks: 4 .*5 ',
    ),
    'homeless tensor': (
        lambda c: c['state_dict_unet'].update({'conv_out.weight': torch.ones(1)}),
        'conv_out.weight is unknown',
    ),
    'unknown layer': (
        lambda c: c['state_dict_unet'].update(
            {f'no.layer.lora_{side}.default_others.weight': torch.ones(4, 4) for side in 'AB'}
        ),
        'no.layer is adapted.*no such layer',
    ),
    'listed layer without tensors': (
        lambda c: c.update(unet_lora_others_modules=[*c['unet_lora_others_modules'], 'conv_out']),
        'without tensors; the first is conv_out',
    ),
    'two adapters of a layer': (
        lambda c: c['state_dict_unet'].update({PAIR.format('A').replace('others', 'encoder'): torch.ones(4, 96, 3, 3)}),
        'adapt the same layer',
    ),
    'not finite': (
        lambda c: c['state_dict_unet'].update({PAIR.format('A'): torch.full((4, 96, 3, 3), float('nan'))}),
        'NaN or infinity',
    ),
    'no lists': (lambda c: c.pop('unet_lora_others_modules'), "no entry 'unet_lora_others_modules'"),
}


@pytest.mark.parametrize('name', BROKEN)
def test_broken_content_is_a_clear_error(contents, tiny_base, tmp_path, name):
    change, message = BROKEN[name]
    torch.save(broken(contents, change), tmp_path / 'a.pkl')
    with pytest.raises(CheckpointError, match=message):
        convert_file(tmp_path / 'a.pkl', tmp_path / 'out.safetensors', tiny_base, build=None)
    assert [path.name for path in tmp_path.iterdir()] == ['a.pkl']


def test_truncated_and_foreign_files_are_clear_errors(contents, tiny_base, tmp_path):
    torch.save(contents['scr'], tmp_path / 'a.pkl')
    data = (tmp_path / 'a.pkl').read_bytes()
    (tmp_path / 'cut.pkl').write_bytes(data[: len(data) * 2 // 3])
    torch.save({'state_dict': {'x': torch.ones(1)}}, tmp_path / 'other.pkl')
    torch.save({**contents['scr'], 'names': {1, 2}}, tmp_path / 'set.pkl')
    (tmp_path / 'kept.safetensors').write_text('mine')
    (tmp_path / 'reported.conversion.json').write_text('mine')
    for source, out, error, message in (
        ('cut.pkl', 'o.safetensors', CheckpointError, 'damaged or incomplete'),
        ('none.pkl', 'o.safetensors', CheckpointError, 'does not exist'),
        ('other.pkl', 'o.safetensors', CheckpointError, 'other.pkl cannot be converted.*state_dict'),
        ('set.pkl', 'o.safetensors', CheckpointError, 'set at names|builtins.set'),
        ('a.pkl', 'folder', ConfigError, 'ends in .safetensors'),
        ('a.pkl', 'kept.safetensors', ConfigError, 'already exists'),
        ('a.pkl', 'reported.safetensors', ConfigError, 'reported.conversion.json already exists'),
    ):
        with pytest.raises(error, match=message):
            convert_file(tmp_path / source, tmp_path / out, tiny_base, build=None)
    assert (tmp_path / 'kept.safetensors').read_text() == 'mine'


def test_base_of_another_width_is_named(contents, tmp_path, tiny_base):
    torch.save(contents['scr'], tmp_path / 'a.pkl')
    write_random_base(tmp_path / 'sd15', 'sd15', weights=False)
    with pytest.raises(CheckpointError, match='another width.*2.1-base'), torch.device('meta'):
        convert_file(tmp_path / 'a.pkl', tmp_path / 'o.safetensors', tmp_path / 'sd15', build=None)


@pytest.mark.parametrize('name', ['osediff', 'scr'])
def test_an_adapter_file_is_read_and_hashed_once(contents, tiny_base, tmp_path, monkeypatch, name):
    torch.save(contents[name], tmp_path / 'a.pkl')
    file = tmp_path / 'o.safetensors'
    convert_file(tmp_path / 'a.pkl', file, tiny_base, build=None)
    done, opened, hashed = [], adapter_files.safe_open, adapter_files.content_hash
    monkeypatch.setattr(adapter_files, 'safe_open', lambda path, *more: done.append(Path(path)) or opened(path, *more))
    monkeypatch.setattr(adapter_files, 'content_hash', lambda *given: done.append('hash') or hashed(*given))
    recipe = {'form': 'x0', 'timestep': 999} if name == 'osediff' else {}
    attention = ['attention', str(tmp_path / 'none.png'), '--adapter', str(file), '--base', str(tiny_base)]
    for load in (
        lambda: load_restorer(file, tiny_base),
        lambda: OneStepRestorer(read_base(tiny_base), start=file, trainable=False, **recipe),
        lambda: DiffusionBackbone(str(tiny_base), scr_adapter=str(file), features=['unet.up_blocks.3']),
        lambda: main(attention),  # fails at the missing image, after the model is loaded
    ):
        done.clear()
        load()
        assert done == [file, 'hash']


def test_a_conversion_given_again_is_finished_or_refused(contents, tiny_base, tmp_path):
    out, report = tmp_path / 'out.safetensors', tmp_path / 'out.conversion.json'
    torch.save(contents['scr'], tmp_path / 'a.pkl')
    torch.save({**contents['scr'], 'note': 'another file'}, tmp_path / 'b.pkl')
    first = convert_file(tmp_path / 'a.pkl', out, tiny_base, build=None)
    before = out.read_bytes()
    assert convert_file(tmp_path / 'a.pkl', out, tiny_base, build=None) == first and out.read_bytes() == before
    out.unlink()  # as after a kill between the two files
    assert convert_file(tmp_path / 'a.pkl', out, tiny_base, build=None) == first and out.read_bytes() == before
    for lost in (False, True):
        for source, form in (('b.pkl', None), ('a.pkl', 'x0')):
            with pytest.raises(ConfigError, match='already exists.*another file, or with other options'):
                convert_file(tmp_path / source, out, tiny_base, build=None, form=form)
        assert report.exists() and out.exists() == (not lost)
        out.unlink(missing_ok=True)


@pytest.mark.parametrize('change', ['damaged', 'another header', 'another file'])
def test_a_kept_adapter_is_the_one_that_the_conversion_writes(contents, tiny_base, tmp_path, change):
    out = tmp_path / 'out.safetensors'
    torch.save(contents['scr'], tmp_path / 'a.pkl')
    convert_file(tmp_path / 'a.pkl', out, tiny_base, build=None)
    if change == 'damaged':
        data = bytearray(out.read_bytes())
        data[-50] ^= 1
        out.write_bytes(data)
    else:
        adapter = read_adapter(out)
        tensors = {key: value + (change == 'another file') for key, value in adapter.tensors.items()}
        adapter_files.write_adapter(out, {**adapter.header, 'alpha': 4 + 4 * (change == 'another file')}, tensors)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match=r'out\.safetensors already exists, but is not what this conversion writes'):
        convert_file(tmp_path / 'a.pkl', out, tiny_base, build=None)
    assert out.read_bytes() == before


def test_a_result_that_appears_while_the_file_is_read_is_not_overwritten(contents, tiny_base, tmp_path, monkeypatch):
    out, honest = tmp_path / 'out.safetensors', convert_module.read_published
    torch.save(contents['scr'], tmp_path / 'a.pkl')

    def read(*given):
        out.write_text('mine')
        return honest(*given)

    monkeypatch.setattr(convert_module, 'read_published', read)
    with pytest.raises(ConfigError, match='already exists'):
        convert_file(tmp_path / 'a.pkl', out, tiny_base, build=None)
    assert out.read_text() == 'mine'
