"""Precision that a model has if the user chooses none."""

import json
import shutil

import cv2
import numpy as np
import pytest
import torch

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.engine.ready import PREPARED, Preparation, chosen_preparation
from rass_mm.inference.precision import default_preparation
from rass_mm.inference.restorer import load_restorer
from rass_mm_cli.main import main

CPU = torch.device('cpu')


@pytest.fixture
def with_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: {'avx512_bf16': True}, raising=False)


@pytest.fixture(scope='module')
def full_size(tiny_base, tmp_path_factory):
    """A base folder whose config has the widths of Stable Diffusion, without weights."""
    folder = tmp_path_factory.mktemp('bases') / 'full'
    shutil.copytree(tiny_base, folder, ignore=shutil.ignore_patterns('*.safetensors'))
    config = json.loads((folder / 'unet' / 'config.json').read_text())
    (folder / 'unet' / 'config.json').write_text(json.dumps({**config, 'block_out_channels': [320, 640, 1280, 1280]}))
    return folder


@pytest.fixture(scope='module')
def of_osediff(tiny_base, tmp_path_factory):
    """A restorer of the form x0."""
    path, base = tmp_path_factory.mktemp('adapter') / 'x0.safetensors', read_base(tiny_base)
    OneStepRestorer(base, 'x0', 999).save(path, base.identity, 'ClassTokens', ['sky'])
    return path


def test_models_of_a_small_base_are_as_trained(tiny_base, adapter, with_bfloat16):
    assert default_preparation(CPU, [tiny_base], [adapter]) is None
    assert not hasattr(load_restorer(adapter, tiny_base, device='cpu').network, PREPARED)
    assert load_restorer(adapter, tiny_base, device='cpu', dtype='bfloat16').network.prepared_as.dtype == 'bfloat16'


def test_models_of_a_full_size_base_have_the_precision_of_the_device(full_size, tiny_base, adapter, with_bfloat16):
    assert default_preparation(CPU, [full_size], [adapter]) == Preparation('bfloat16')
    assert default_preparation(CPU, [tiny_base, [full_size]]) == Preparation('bfloat16')
    assert default_preparation(torch.device('meta'), [full_size]) == Preparation('float32')


def test_restorers_of_the_form_x0_compute_in_float32(full_size, of_osediff, with_bfloat16):
    assert default_preparation(CPU, [full_size], [of_osediff]) == Preparation('float32')


def test_a_base_that_cannot_be_read_is_left_to_the_loading(tmp_path):
    assert default_preparation(CPU, [tmp_path / 'none'], [tmp_path / 'none.safetensors']) is not None


def test_choices_replace_the_default():
    usual = Preparation('bfloat16')
    assert chosen_preparation(default=usual) is usual and chosen_preparation() is None
    assert chosen_preparation('float32', default=usual) == Preparation('float32')
    assert chosen_preparation(compile=True, default=usual) == Preparation('bfloat16', compile=True)
    assert chosen_preparation(compile=True) == Preparation('float32', compile=True)


@pytest.mark.parametrize('options', [(), ('--dtype', 'bfloat16')], ids=['default', 'chosen'])
def test_the_command_says_its_precision(options, tiny_base, adapter, tmp_path, caplog):
    image = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    given = ['restore', tmp_path / 'a.png', tmp_path / 'out.png', '--adapter', adapter, '--base', tiny_base]
    with caplog.at_level('INFO'):
        assert main([*map(str, given), '--device', 'cpu', '--window', '64', '--overlap', '16', *options]) == 0
    expected = 'bfloat16 on cpu, prepared' if options else 'float32 on cpu, network as trained'
    assert f'Precision: {expected}' in caplog.text
