"""Adapters, compared with explicit arithmetic, and adapter files that are changed, damaged or interrupted."""

import json
import math
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from rass_mm.diffusion import adapter_files, adapters
from rass_mm.diffusion.adapter_files import read_adapter, save_adapter
from rass_mm.diffusion.adapter_loading import load_adapter
from rass_mm.diffusion.adapters import AdapterSpec, add_adapter, merge_adapter, train_adapter
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet
from rass_mm.diffusion.known_bases import write_random_base
from rass_mm.errors import AdapterError

LINEAR = 'mid_block.attentions.0.transformer_blocks.0.attn2.to_v'
CONV = 'up_blocks.1.resnets.0.conv1'
CONV_IN = {'conv_in.base_layer.weight', 'conv_in.base_layer.bias'}


@pytest.fixture(scope='module')
def base(tiny_base):
    return read_base(tiny_base)


@pytest.fixture
def unet(base):
    return load_unet(base)


@pytest.fixture(scope='module')
def file(base, tmp_path_factory):
    unet, path = load_unet(base), tmp_path_factory.mktemp('adapters') / 'seg.safetensors'
    add_adapter(unet, 'seg', AdapterSpec(rank=3, alpha=5.0))
    train(unet)
    save_adapter(unet, 'seg', path, base.identity)
    return path


def test_a_checkpoint_or_a_folder_in_place_of_an_adapter_names_the_adapters(file, tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'iter_2.pth')
    with pytest.raises(AdapterError, match=r'is a checkpoint of PyTorch.*training wrote to its work dir'):
        read_adapter(tmp_path / 'iter_2.pth')
    with pytest.raises(AdapterError, match=r'is a folder. It contains no .safetensors file'):
        read_adapter(tmp_path)
    shutil.copy(file, tmp_path / 'scr_adapter.safetensors')
    for wrong in (tmp_path / 'iter_2.pth', tmp_path):
        with pytest.raises(AdapterError, match=rf'e\.g\. {tmp_path}/scr_adapter\.safetensors'):
            read_adapter(wrong)


def run(unet, grad=False):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(2, unet.config.in_channels, 8, 16, generator=generator)
    context = torch.randn(2, 3, unet.config.cross_attention_dim, generator=generator)
    with torch.set_grad_enabled(grad):
        return unet(latent, 1, encoder_hidden_states=context).sample


def train(unet, steps=2):
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=2e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        (run(unet, grad=True) - 1).square().mean().backward()
        optimizer.step()


def trainable(unet):
    return {name for name, parameter in unet.named_parameters() if parameter.requires_grad}


def refusal(call, *arguments, **keywords):
    with pytest.raises(AdapterError) as caught:
        call(*arguments, **keywords)
    return str(caught.value)


def rewritten(file, path, change):
    with safe_open(file, 'pt') as opened:
        header = json.loads(opened.metadata()[adapter_files.HEADER])
    tensors = load_file(file)
    change(header, tensors)
    save_file(tensors, path, metadata={adapter_files.HEADER: json.dumps(header)})
    return path


def test_adding_leaves_the_output_unchanged(unet):
    before = run(unet)
    add_adapter(unet, 'seg')
    assert torch.equal(run(unet), before)


def test_only_the_new_lora_and_conv_in_are_trained(unet):
    layers = {name for name, part in unet.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))}
    left_out = {
        name
        for name in layers
        if name == 'conv_out' or name.startswith('time_embedding') or name.endswith('time_emb_proj')
    }
    add_adapter(unet, 'seg')
    lora = {f'{name}.lora_{side}.seg.weight' for name in layers - left_out for side in 'AB'}
    assert trainable(unet) == lora | CONV_IN


def test_conv_in_stays_frozen_on_request(unet):
    add_adapter(unet, 'seg', train_conv_in=False)
    assert trainable(unet) and not trainable(unet) & CONV_IN


def test_only_the_chosen_one_of_two_adapters_is_active_and_trains(unet):
    add_adapter(unet, 'scr')
    train(unet)
    with_scr = run(unet)
    add_adapter(unet, 'vsd')
    assert all('.vsd.' in name for name in trainable(unet) - CONV_IN)
    assert not torch.allclose(run(unet), with_scr, atol=1e-3)  # the new adapter has no effect yet
    train_adapter(unet, 'scr', train_conv_in=False)
    assert trainable(unet) and all('.scr.' in name for name in trainable(unet))
    assert torch.equal(run(unet), with_scr)


@pytest.mark.parametrize('name', ['attn1', 'conv1'])
def test_an_adapter_named_like_a_layer_unfreezes_no_base_weight(unet, name):
    add_adapter(unet, 'scr')
    add_adapter(unet, name)
    freed = trainable(unet) - CONV_IN
    assert freed and all(key.endswith((f'.lora_A.{name}.weight', f'.lora_B.{name}.weight')) for key in freed)


def test_lora_starts_gaussian_with_std_one_over_rank(unet):
    add_adapter(unet, 'seg', AdapterSpec(rank=5))
    a = torch.cat([value.flatten() for name, value in unet.named_parameters() if 'lora_A' in name])
    assert a.std().item() == pytest.approx(1 / 5, rel=0.02) and abs(a.mean().item()) < 0.005
    assert not any(value.any() for name, value in unet.named_parameters() if 'lora_B' in name)


def test_a_used_name_and_targets_without_layers_are_refused(unet):
    assert 'Nothing' not in refusal(add_adapter, unet, 'seg', AdapterSpec(targets=('nothing',)))
    assert not trainable(unet) and not getattr(unet, 'peft_config', {})
    add_adapter(unet, 'seg')
    assert "'seg'" in refusal(add_adapter, unet, 'seg')


def test_merging_leaves_the_output_unchanged_and_no_trace(unet, base):
    names = set(unet.state_dict())
    untouched = run(unet)
    add_adapter(unet, 'seg')
    train(unet)
    trained = run(unet)
    merge_adapter(unet, 'seg')
    assert (trained - untouched).abs().max() > 0.1  # the training steps had an effect that could be lost
    assert (run(unet) - trained).abs().max() < 1e-4
    assert set(unet.state_dict()) == names and not trainable(unet)
    assert all(parameter.dtype == torch.float32 for parameter in unet.parameters())


def test_merged_weights_equal_the_formula_in_float64(unet):
    add_adapter(unet, 'seg', AdapterSpec(rank=3, alpha=7.0))
    train(unet)
    state = {name: value.double().clone() for name, value in unet.state_dict().items()}
    merge_adapter(unet, 'seg')
    for layer in (LINEAR, CONV, 'conv_in'):
        weight, a, b = (state[f'{layer}.{part}.weight'] for part in ('base_layer', 'lora_A.seg', 'lora_B.seg'))
        update = torch.einsum('or,rihw->oihw', b[:, :, 0, 0], a) if weight.ndim == 4 else b @ a
        assert update.abs().max() > 1e-3
        torch.testing.assert_close(
            unet.get_submodule(layer).weight.double(), weight + 7 / 3 * update, atol=1e-6, rtol=1e-6
        )


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_merging_values_that_are_not_finite_is_refused_and_changes_nothing(unet, value):
    add_adapter(unet, 'seg')
    before = unet.get_submodule(LINEAR).base_layer.weight.clone()
    with torch.no_grad():
        unet.get_submodule(LINEAR).lora_B['seg'].weight[0, 0] = value
    message = refusal(merge_adapter, unet, 'seg')
    assert LINEAR in message and 'NaN or infinity' in message
    assert torch.equal(unet.get_submodule(LINEAR).base_layer.weight, before) and 'seg' in unet.peft_config


def test_an_overflow_in_the_merged_values_is_refused(unet):
    add_adapter(unet, 'seg')
    with torch.no_grad():
        layer = unet.get_submodule(LINEAR)
        layer.lora_A['seg'].weight.fill_(1e30)
        layer.lora_B['seg'].weight.fill_(1e30)
    assert "'seg'" in refusal(merge_adapter, unet, 'seg')


def test_merging_needs_exactly_one_adapter(unet):
    assert 'no adapters' in refusal(merge_adapter, unet, 'seg')
    add_adapter(unet, 'scr')
    assert "['scr']" in refusal(merge_adapter, unet, 'seg')
    add_adapter(unet, 'seg')
    assert "['scr', 'seg']" in refusal(merge_adapter, unet, 'seg')


def test_a_new_adapter_does_not_revert_the_merged_weights(unet):
    add_adapter(unet, 'scr')
    train(unet)
    trained = run(unet)
    merge_adapter(unet, 'scr')
    merged = {layer: unet.get_submodule(layer).weight.clone() for layer in (LINEAR, CONV, 'conv_in')}
    add_adapter(unet, 'seg')
    assert (run(unet) - trained).abs().max() < 1e-4
    assert all(torch.equal(unet.get_submodule(layer).base_layer.weight, weight) for layer, weight in merged.items())
    train(unet)
    twice = run(unet)
    merge_adapter(unet, 'seg')
    assert (run(unet) - twice).abs().max() < 1e-4


def test_groups_have_the_published_sizes(tmp_path):
    write_random_base(tmp_path / 'sd', 'sd21-base', weights=False)
    with torch.device('meta'):
        unet = load_unet(read_base(tmp_path / 'sd'))
        add_adapter(unet, 'seg', AdapterSpec(rank=4))
    sizes = dict.fromkeys(('encoder', 'decoder', 'mid'), 0)
    for name, parameter in unet.named_parameters():
        if 'lora_' in name:
            sizes[adapters.layer_group(name)] += parameter.numel()
    assert {group: round(size / 1e6, 2) for group, size in sizes.items()} == {
        'encoder': 1.25,
        'decoder': 2.41,
        'mid': 0.38,
    }


def test_round_trip_gives_identical_outputs_conv_in_included(unet, base, tmp_path):
    spec = AdapterSpec(rank=3, alpha=5.0)
    add_adapter(unet, 'seg', spec)
    train(unet)
    save_adapter(unet, 'seg', tmp_path / 'new' / 'seg.safetensors', base.identity)
    other = load_unet(base)
    conv_in = other.conv_in.weight.clone()
    header = load_adapter(other, tmp_path / 'new' / 'seg.safetensors', base.identity)
    assert (run(other) - run(unet)).abs().max() < 1e-5  # memory alignment selects the kernel
    state = other.state_dict()
    assert set(state) == set(unet.state_dict()) and all(
        torch.equal(value, state[name]) for name, value in unet.state_dict().items()
    )
    assert torch.equal(other.conv_in.base_layer.weight, unet.conv_in.base_layer.weight)
    assert not torch.equal(other.conv_in.base_layer.weight, conv_in)
    assert not trainable(other)
    assert (header['name'], header['rank'], header['base']) == ('seg', 3, base.identity)


def test_alpha_is_preserved(file, unet, base):
    load_adapter(unet, file, base.identity)
    assert unet.peft_config['seg'].lora_alpha == 5.0
    assert unet.get_submodule(CONV).scaling['seg'] == pytest.approx(5 / 3)


def test_another_set_of_layers_is_preserved(unet, base, tmp_path):
    add_adapter(unet, 'seg', AdapterSpec(targets=('attn1.to_q', 'conv_shortcut')))
    save_adapter(unet, 'seg', tmp_path / 'a.safetensors', base.identity)
    other = load_unet(base)
    load_adapter(other, tmp_path / 'a.safetensors', base.identity)
    assert set(other.state_dict()) == set(unet.state_dict())


def test_loading_under_another_name(file, unet, base):
    header = load_adapter(unet, file, base.identity, name='merged')
    assert list(unet.peft_config) == ['merged'] and header['name'] == 'seg'
    before = run(unet)
    merge_adapter(unet, 'merged')
    assert (run(unet) - before).abs().max() < 1e-4


def test_a_file_of_another_base_is_refused_with_both_identities(file, base, other_base):
    other = read_base(other_base)
    unet = load_unet(other)
    before = set(unet.state_dict())
    message = refusal(load_adapter, unet, file, other.identity)
    assert base.identity['weights'] in message and other.identity['weights'] in message and str(file) in message
    assert 'different weights' in message and set(unet.state_dict()) == before


def test_the_same_base_in_another_folder_is_accepted(file, unet, base):
    load_adapter(unet, file, {**base.identity, 'name': 'elsewhere'})
    assert 'seg' in unet.peft_config


def test_one_changed_value_is_detected(file, tmp_path, unet, base):
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    (tmp_path / 'changed.safetensors').write_bytes(data)
    message = refusal(load_adapter, unet, tmp_path / 'changed.safetensors', base.identity)
    assert 'changed.safetensors' in message and 'hash' in message


def test_a_dropped_tensor_is_detected(file, tmp_path):
    path = rewritten(file, tmp_path / 'a.safetensors', lambda _, tensors: tensors.pop('conv_in.bias'))
    assert 'hash' in refusal(read_adapter, path)


@pytest.mark.parametrize(('key', 'value'), [('alpha', 50.0), ('rank', 4)])
def test_a_changed_scale_is_detected(file, tmp_path, unet, base, key, value):
    path = rewritten(file, tmp_path / 'a.safetensors', lambda header, _: header.update({key: value}))
    assert str(path) in refusal(load_adapter, unet, path, base.identity)


@pytest.mark.parametrize('kept', [0, 4, 200, 0.5, -1])
def test_a_truncated_file_is_refused(file, tmp_path, kept):
    data = file.read_bytes()
    path = tmp_path / 'cut.safetensors'
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    assert str(path) in refusal(read_adapter, path)


def test_foreign_and_absent_files_are_distinguished(file, tmp_path):
    plain, text = tmp_path / 'plain.safetensors', tmp_path / 'text.safetensors'
    save_file(load_file(file), plain)
    text.write_text('not tensors at all')
    assert 'without the' in refusal(read_adapter, plain) and adapter_files.HEADER in refusal(read_adapter, plain)
    assert 'damaged or not safetensors' in refusal(read_adapter, text)
    assert 'does not exist' in refusal(read_adapter, tmp_path / 'absent.safetensors')


def test_an_interrupted_save_leaves_the_old_file_whole(file, unet, base, tmp_path, monkeypatch):
    path = tmp_path / 'seg.safetensors'
    path.write_bytes(file.read_bytes())
    add_adapter(unet, 'seg')

    def broken(tensors, target, metadata):
        target.write_bytes(b'half a file')
        raise OSError('disk full')

    monkeypatch.setattr(adapter_files, 'save_file', broken)
    with pytest.raises(OSError, match='disk full'):
        save_adapter(unet, 'seg', path, base.identity)
    assert path.read_bytes() == file.read_bytes() and [*tmp_path.iterdir()] == [path]
    assert read_adapter(path).header['rank'] == 3
