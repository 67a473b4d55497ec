"""The printed precision and the manifest of a segmentor say what was done to its weights."""

import pytest
import torch

from rass_mm.config import load_config
from rass_mm.engine.packing import PackedConv2d, can_pack
from rass_mm.engine.ready import Preparation
from rass_mm.files.manifest import MANIFEST, read_header
from rass_mm.inference.loading import read_segmentor
from rass_mm.inference.own_preparation import prepares_parts
from rass_mm_cli.main import main

CPU = torch.device('cpu')
KINDS = {
    'baselines/resnet_scenes_tiny.py': False,
    'baselines/segformer_b0_dt_ade20k_lq.py': False,
    'baselines/resnet_scenes_tiny_r2s.py': True,
    'diffusion/fcn_diffusion-tiny_1xb8-170_scenes-96x96.py': True,
    'rass/rass_scenes_tiny_mask2former.py': True,
}


@pytest.mark.parametrize(('name', 'own'), KINDS.items(), ids=KINDS)
def test_models_with_parts_of_this_package_are_found_in_their_config(name, own):
    assert prepares_parts(load_config(name)) == own


def test_restoring_first_does_not_count_itself():
    config = load_config('baselines/resnet_scenes_tiny_r2s.py')
    config.model.restorer = {'type': 'Conv2d', 'in_channels': 3, 'out_channels': 3}
    assert not prepares_parts(config)


def layouts(model):
    """(whether layers are packed, whether weights of convolutions have the channels-last layout)."""
    weights = [
        part.weight for part in model.modules() if isinstance(part, torch.nn.Conv2d) and part.weight.shape[1] > 1
    ]
    last = [weight.is_contiguous(memory_format=torch.channels_last) for weight in weights if weight.shape[-1] > 1]
    return any(isinstance(part, PackedConv2d) for part in model.modules()), any(last)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['plain', 'rass'])
def test_the_record_of_a_model_is_known_before_it_is_built(trained, name, dtype):
    source, how = read_segmentor(getattr(trained, name).file), Preparation(dtype)
    own = prepares_parts(source.config)
    assert own == (name == 'rass')
    model = source.build(CPU, how).model
    packed, last = layouts(model)
    assert packed == (own and can_pack()) == how.record(CPU, own)['pack'] == model.prepared_as.pack
    assert ('weights packed' in how.described(CPU, own)) == packed
    if not own:
        assert not last and not how.record(CPU, own)['channels_last'] and not model.prepared_as.channels_last


def test_the_command_says_that_a_plain_segmentor_is_not_packed(trained, photos, tmp_path, caplog):
    out = tmp_path / 'out'
    with caplog.at_level('INFO'):
        given = ['segment', photos / 'a.png', out, '--checkpoint', trained.plain.file, '--device', 'cpu']
        assert main([*map(str, given), '--dtype', 'float32']) == 0
    assert 'Precision: float32 on cpu, network as trained\n' in caplog.text
    record = {'dtype': 'float32', 'channels_last': False, 'compile': False, 'pack': False}
    assert read_header(out / MANIFEST)['model']['prepared'] == record
