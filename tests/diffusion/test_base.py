"""Base folders: lookup, validation, errors with a remedy, identification and loading."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from rass_mm.diffusion.base import find_base, read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.base_weights import on_meta
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.diffusion.text import TextEncoder
from rass_mm.errors import BaseFolderError
from rass_mm_cli.main import main

UNET = 'unet/diffusion_pytorch_model.safetensors'
VAE = 'vae/diffusion_pytorch_model.safetensors'
TEXT = 'text_encoder/model.safetensors'


@pytest.fixture
def copy(tiny_base, tmp_path):
    return Path(shutil.copytree(tiny_base, tmp_path / 'copy'))


def edit_json(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def edit_tensors(file, change):
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={'format': 'pt'})


def refusal(call, *arguments, **keywords):
    with pytest.raises(BaseFolderError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


def fake_base(folder):
    (folder / 'unet').mkdir(parents=True)
    (folder / 'unet' / 'config.json').write_text('{}')
    return folder


def test_the_first_existing_source_is_used(tmp_path):
    first, second = fake_base(tmp_path / 'first'), fake_base(tmp_path / 'second')
    (tmp_path / 'empty').mkdir()
    assert find_base([tmp_path / 'absent', tmp_path / 'empty', second, first]) == second
    assert find_base([first, second]) == first
    assert find_base(str(second)) == second


def test_relative_names_are_looked_up_in_the_working_directory_then_in_the_variable(tmp_path, monkeypatch):
    here, shelf = tmp_path / 'here', tmp_path / 'shelf'
    fake_base(shelf / 'bases' / 'sd')
    here.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(BaseFolderError):
        find_base('bases/sd')
    monkeypatch.setenv('RASS_MM_BASES', str(shelf))
    assert find_base('bases/sd') == shelf / 'bases' / 'sd'
    fake_base(shelf / 'sd')
    assert find_base('bases/sd') == shelf / 'sd'  # the variable names the folder that holds the bases
    fake_base(here / 'bases' / 'sd')
    assert find_base('bases/sd').resolve() == (here / 'bases' / 'sd').resolve()


def test_an_earlier_source_in_the_variable_precedes_a_later_source(tmp_path, monkeypatch):
    late, early = fake_base(tmp_path / 'late'), fake_base(tmp_path / 'shelf' / 'early-base')
    monkeypatch.setenv('RASS_MM_BASES', str(tmp_path / 'shelf'))
    assert find_base(['early-base', late]) == early


def test_a_missing_base_names_every_place_the_files_and_commands(tmp_path, monkeypatch):
    monkeypatch.setenv('RASS_MM_BASES', str(tmp_path / 'shelf'))
    message = refusal(find_base, ['bases/absent', tmp_path / 'nowhere'])
    shelf = tmp_path / 'shelf'
    for place in (Path('bases/absent').absolute(), shelf / 'absent', shelf / 'bases/absent', tmp_path / 'nowhere'):
        assert f'  {place}/unet/config.json\n' in message
    for part in ('unet/', 'vae/', 'text_encoder/', 'tokenizer/', 'scheduler/', 'safetensors'):
        assert part in message
    assert f'RASS_MM_BASES is {shelf}' in message and '--cfg-options model.backbone.base=' in message
    assert 'rass-mm make-base bases/absent' in message and 'rass-mm random-base bases/absent' in message


@pytest.mark.parametrize('command', ['make-base', 'random-base'])
def test_the_commands_in_the_message_exist(command, capsys):
    assert main([command, '--help']) == 0 and f'usage: rass-mm {command}' in capsys.readouterr().out


def test_width_other_than_expected_names_file_values_and_both_ways_out(tiny_base):
    message = refusal(read_base, tiny_base, {'cross_attention_dim': 1024})
    assert str(tiny_base / 'unet' / 'config.json') in message
    assert 'cross_attention_dim is 64, but 1024 is needed' in message and '768 in SD 1.5' in message
    assert 'model.backbone.base=' in message and 'model.backbone.expect.cross_attention_dim=64' in message


def test_fitting_expectations_pass(tiny_base):
    base = read_base(tiny_base, {'cross_attention_dim': 64, 'sample_size': 32, 'prediction_type': 'epsilon'})
    assert (base.context_width, base.vae_stride, base.size_multiple, base.scaling_factor) == (64, 4, 32, 0.18215)


def test_unet_and_text_encoder_of_different_widths_are_refused(copy):
    edit_json(copy / 'unet' / 'config.json', cross_attention_dim=128)
    message = refusal(read_base, copy)
    assert 'cross_attention_dim is 128, but 64 is needed' in message and 'text encoder' in message


def test_unet_and_vae_of_different_latents_are_refused(copy):
    channels = read_base(copy).configs['unet']['in_channels']
    edit_json(copy / 'vae' / 'config.json', latent_channels=16)
    message = refusal(read_base, copy)
    assert f'in_channels is {channels}, but 16 is needed' in message and 'VAE' in message


def test_v_prediction_is_refused_with_the_right_release(copy):
    edit_json(copy / 'scheduler' / 'scheduler_config.json', prediction_type='v_prediction')
    message = refusal(read_base, copy)
    assert str(copy / 'scheduler' / 'scheduler_config.json') in message
    assert "prediction_type is 'v_prediction', but 'epsilon' is needed" in message and '2.1-BASE' in message


def test_v_prediction_can_be_expected(copy):
    edit_json(copy / 'scheduler' / 'scheduler_config.json', prediction_type='v_prediction')
    assert read_base(copy, {'prediction_type': 'v_prediction'}).folder == copy


@pytest.mark.parametrize(
    'file', ['scheduler/scheduler_config.json', 'vae/config.json', 'text_encoder/config.json', 'unet/config.json']
)
def test_missing_config_is_named(copy, file):
    (copy / file).unlink()
    message = refusal(read_base, copy)
    assert str(copy / file) in message and 'rass-mm make-base' in message


@pytest.mark.parametrize('content', [b'{"in_channels": 4,', b'', b'\xff\xfe{}'])
def test_damaged_json_is_named(copy, content):
    (copy / 'vae' / 'config.json').write_bytes(content)
    message = refusal(read_base, copy)
    assert str(copy / 'vae' / 'config.json') in message and 'cannot be read as JSON' in message


def test_pickled_weights_alone_are_not_read(copy):
    (copy / UNET).rename(copy / 'unet' / 'diffusion_pytorch_model.bin')
    message = refusal(load_unet, read_base(copy))
    assert str(copy / 'unet') in message and 'diffusion_pytorch_model.bin' in message and 'Only safetensors' in message


def test_no_weights_at_all_are_distinguished(copy):
    (copy / VAE).unlink()
    assert 'found: no weights at all' in refusal(load_vae, read_base(copy))


@pytest.mark.parametrize('kept', [0, 5, 1000, -1])
def test_truncated_weights_name_the_file(copy, kept):
    data = (copy / UNET).read_bytes()
    (copy / UNET).write_bytes(data[:kept])
    base = read_base(copy)
    for call in (load_unet, lambda base: base.identity):
        message = refusal(call, base)
        assert str(copy / UNET) in message and 'damaged or incomplete' in message


def test_truncated_text_encoder_names_the_file(copy):
    (copy / TEXT).write_bytes((copy / TEXT).read_bytes()[:-100])
    assert str(copy / TEXT) in refusal(TextEncoder, read_base(copy))


def test_missing_tokenizer_file_is_named(copy):
    (copy / 'tokenizer' / 'merges.txt').unlink()
    assert str(copy / 'tokenizer' / 'merges.txt') in refusal(TextEncoder, read_base(copy))


@pytest.mark.parametrize(('load', 'file'), [(load_unet, UNET), (load_vae, VAE), (TextEncoder, TEXT)])
def test_a_weight_missing_in_the_file_is_never_drawn_at_random(copy, load, file):
    lacking = sorted(
        name for name in load_file(copy / file) if name.startswith(('encoder', 'text_model.encoder', 'down_blocks'))
    )[0]
    edit_tensors(copy / file, lambda tensors: tensors.pop(lacking))
    message = refusal(load, read_base(copy))
    assert str(copy / file) in message and lacking in message


def test_weights_of_other_shapes_than_the_config_are_refused(copy):
    edit_json(copy / 'unet' / 'config.json', block_out_channels=[24, 48, 128, 128])
    assert 'down_blocks.2' in refusal(load_unet, read_base(copy))


def test_half_and_full_precision_files_of_one_base_are_the_same_base(tmp_path, tiny_base):
    write_random_base(tmp_path / 'half', 'scenes-tiny', half=True)
    assert load_file(tmp_path / 'half' / UNET)['conv_in.weight'].dtype == torch.float16
    full, half = read_base(tiny_base).identity, read_base(tmp_path / 'half').identity
    assert full['config'] == half['config'] and full['weights'] == half['weights']


def test_identity_does_not_depend_on_the_folder_except_for_its_name(copy, tiny_base):
    mine, theirs = read_base(copy).identity, read_base(tiny_base).identity
    assert mine == {**theirs, 'name': 'copy'} and theirs['name'] == tiny_base.name


@pytest.mark.parametrize('file', [UNET, VAE])
def test_one_sampled_value_changes_the_identity_of_the_weights_only(copy, tiny_base, file):
    def change(tensors):
        tensors[sorted(tensors)[0]].view(-1)[3] += 0.5

    edit_tensors(copy / file, change)
    mine, theirs = read_base(copy).identity, read_base(tiny_base).identity
    assert mine['weights'] != theirs['weights'] and mine['config'] == theirs['config']


def test_config_changes_the_identity_but_library_marks_do_not(copy, tiny_base):
    edit_json(copy / 'unet' / 'config.json', _diffusers_version='0.1.0', _name_or_path='elsewhere')
    assert read_base(copy).identity['config'] == read_base(tiny_base).identity['config']
    edit_json(copy / 'unet' / 'config.json', norm_eps=1e-3)
    assert read_base(copy).identity['config'] != read_base(tiny_base).identity['config']


def test_loaded_modules_are_frozen_float32_in_eval_mode_with_the_values_of_the_file(tmp_path):
    write_random_base(tmp_path / 'half', 'scenes-tiny', half=True)
    base = read_base(tmp_path / 'half')
    for module, file in ((load_unet(base), UNET), (load_vae(base, decoder=True), VAE), (TextEncoder(base).model, TEXT)):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not any(part.training for part in module.modules())
        stored = load_file(base.folder / file)
        for name, parameter in module.named_parameters():
            assert parameter.dtype == torch.float32 and torch.equal(parameter, stored[name].float())


def test_full_precision_is_preferred_and_a_variant_alone_is_sufficient(copy):
    half = {name: tensor.half() for name, tensor in load_file(copy / UNET).items()}
    save_file(half, copy / 'unet' / 'diffusion_pytorch_model.fp16.safetensors', metadata={'format': 'pt'})
    both = load_unet(read_base(copy)).conv_in.weight
    assert torch.equal(both, load_file(copy / UNET)['conv_in.weight'])
    (copy / UNET).unlink()
    assert torch.equal(load_unet(read_base(copy)).conv_in.weight, half['conv_in.weight'].float())


def test_sharded_weights_load_the_same_values(copy):
    whole = load_file(copy / UNET)
    (copy / UNET).unlink()
    UNet2DConditionModel.from_config(read_base(copy).configs['unet']).save_pretrained(
        copy / 'unet', max_shard_size='5MB'
    )
    shards = sorted((copy / 'unet').glob('*-of-*.safetensors'))
    assert len(shards) > 1
    for shard in shards:
        edit_tensors(shard, lambda tensors: tensors.update({name: whole[name] for name in tensors}))
    unet = load_unet(read_base(copy))
    assert all(torch.equal(value, whole[name]) for name, value in unet.state_dict().items())


def test_sharded_files_are_the_same_base(copy, tiny_base):
    whole = load_file(copy / UNET)
    (copy / UNET).unlink()
    names = sorted(whole)
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = copy / 'unet' / f'diffusion_pytorch_model-0000{number}-of-00002.safetensors'
        save_file({name: whole[name] for name in part}, shard, metadata={'format': 'pt'})
    assert read_base(copy).identity['weights'] == read_base(tiny_base).identity['weights']


def test_published_names_of_older_releases_load_the_same_values(copy, tiny_base):
    def text_names(tensors):
        for name in list(tensors):
            tensors['text_model.' + name.removeprefix('text_model.')] = tensors.pop(name)
        tensors['text_model.embeddings.position_ids'] = torch.arange(77)[None]

    def vae_names(tensors):
        new = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
        for name in [name for name in tensors if 'attentions' in name and 'to_' in name]:
            part = next(part for part in new if part in name)
            tensors[name.replace(part, new[part])] = tensors.pop(name)

    edit_tensors(copy / TEXT, text_names)
    edit_tensors(copy / VAE, vae_names)
    for load in (load_vae, TextEncoder):
        expected, found = load(read_base(tiny_base)).state_dict(), load(read_base(copy)).state_dict()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())


def test_vae_without_decoder_encodes_like_the_complete_vae(tiny_base):
    base = read_base(tiny_base)
    images = torch.rand(2, 3, 32, 64) * 2 - 1
    whole, half = AutoencoderKL.from_pretrained(tiny_base / 'vae').eval(), load_vae(base)
    with torch.no_grad():
        assert torch.equal(half.encode(images).latent_dist.parameters, whole.encode(images).latent_dist.parameters)
    assert not [name for name in half.state_dict() if name.startswith(('decoder', 'post_quant'))]
    assert load_vae(base, decoder=True).decoder is not None


def test_under_the_meta_device_nothing_is_read_and_nothing_allocated(copy):
    for file in (UNET, VAE, TEXT):
        (copy / file).unlink()
    assert not on_meta()
    base = read_base(copy)
    with torch.device('meta'):
        assert on_meta() and base.identity['weights'] == 'none'
        modules = [load_unet(base), load_vae(base), TextEncoder(base)]
    assert all(parameter.is_meta for module in modules for parameter in module.parameters())
