"""The small base that comes with the package: whole, as recorded, in the wheel, and named where a base is missing."""

import json
import shlex
import shutil
import subprocess

import pytest
import torch
from commands import ROOT, python
from safetensors.torch import load_file

from rass_mm.cli import make_base as command
from rass_mm.cli.options import given
from rass_mm.demo.base.recipe import BaseRecipe
from rass_mm.demo.base.shipped import COMMANDS, RECORD, ship_base, shipped_base, shipped_record
from rass_mm.demo.scenes.generator import make_scene
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.text import TextEncoder
from rass_mm.errors import BaseFolderError
from rass_mm.files.hashing import file_sha256
from rass_mm_cli.parser import CommandParser


def files(folder):
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob('*') if file.is_file())


def test_files_and_identity_are_the_recorded_ones():
    record = shipped_record()
    assert read_base(shipped_base()).identity['weights'] == record['weights']
    weights = [file for file in files(shipped_base()) if file.endswith('.safetensors')]
    assert {file: file_sha256(shipped_base() / file) for file in weights} == record['float16']


def test_the_recorded_commands_train_what_the_base_says_it_was_trained_by():
    assert shipped_record()['commands'] == list(COMMANDS)
    program, name, *arguments = shlex.split(COMMANDS[-1])
    assert (program, name) == ('rass-mm', 'make-base')
    parsed = command.add_arguments(CommandParser()).parse_args(arguments)
    recipe = BaseRecipe(**given(parsed, command.RECIPE_OPTIONS))
    training = json.loads((shipped_base() / 'training.json').read_text())
    assert vars(recipe) == training['recipe'] and parsed.fresh_unet and training['start']['fresh_unet']
    assert recipe.seed == shipped_record()['seed']


def test_it_loads_and_its_autoencoder_knows_the_scenes():
    """A scene that it was not trained on comes back at 28 dB; random weights give about 10."""
    base = read_base(shipped_base(), {'cross_attention_dim': 64})
    picture = torch.from_numpy(make_scene(12345)[0][..., ::-1].copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    vae = load_vae(base, decoder=True)
    latent = vae.encode(picture).latent_dist.mode()
    error = ((vae.decode(latent).sample.clamp(-1, 1) - picture) / 2).square().mean()
    assert -10 * error.log10() > 28
    context = TextEncoder(base).encode_texts(['a photo of a sky, road'])[0]
    assert load_unet(base)(latent * base.scaling_factor, 5, encoder_hidden_states=context).sample.isfinite().all()


def test_the_package_carries_every_file(tmp_path):
    done = python('setup.py', '-q', 'build_py', '--build-lib', tmp_path / 'lib')
    assert done.returncode == 0, done.stderr
    built = tmp_path / 'lib' / shipped_base().relative_to(ROOT)
    assert files(built) == files(shipped_base()) and RECORD in files(built)


@pytest.mark.parametrize('exists', [False, True])
def test_a_missing_base_names_a_command_that_copies_it(tmp_path, exists):
    folder = tmp_path / 'some bases' / 'scenes-tiny'
    if exists:
        folder.mkdir(parents=True)
    with pytest.raises(BaseFolderError) as caught:
        read_base(folder)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    subprocess.run(next(line for line in lines if 'cp -r' in line), shell=True, check=True)
    assert read_base(folder).identity == {**read_base(shipped_base()).identity, 'name': 'scenes-tiny'}


def test_shipping_rounds_to_float16_and_keeps_the_identity(tiny_base, tmp_path):
    source = shutil.copytree(tiny_base, tmp_path / 'trained')
    (source / 'training.json').write_text(json.dumps({'recipe': {'seed': 7}}))
    ship_base(source, tmp_path / 'shipped', seconds=12)
    shipped = read_base(tmp_path / 'shipped')
    assert shipped.identity == {**read_base(source).identity, 'name': 'shipped'}
    full = load_file(source / 'unet' / 'diffusion_pytorch_model.safetensors')
    half = load_file(tmp_path / 'shipped' / 'unet' / 'diffusion_pytorch_model.fp16.safetensors')
    assert full.keys() == half.keys() and all(torch.equal(half[name], full[name].half()) for name in full)
    record = json.loads((tmp_path / 'shipped' / RECORD).read_text())
    assert (record['seed'], record['seconds'], record['weights']) == (7, 12, shipped.identity['weights'])
    assert not list((tmp_path / 'shipped').rglob('*model.safetensors'))
    with pytest.raises(BaseFolderError, match='not empty'):
        ship_base(source, tmp_path / 'shipped', seconds=12)
