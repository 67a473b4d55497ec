"""Shared pieces: a random tiny base, a handful of scenes with their degraded copy."""

import os
import signal

import pytest
import torch

torch.set_num_threads(1)  # the suite's models are tiny: more threads only get in each other's way


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of all processes that a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of the tests inherit it


def pytest_collection_modifyitems(items):
    """Moves the campaign to the front: it forks this process, and a fork cannot train once its parent has trained."""
    items.sort(key=lambda item: 'campaign' not in item.path.parts)


@pytest.fixture(scope='session', autouse=True)
def own_cache(tmp_path_factory):
    """Keeps the tests out of the user's cache, and the user's cache out of the tests."""
    os.environ['RASS_MM_CACHE'] = str(tmp_path_factory.mktemp('cache'))
    os.environ.pop('RASS_MM_BASES', None)


@pytest.fixture(scope='session')
def tiny_base(tmp_path_factory):
    """A base folder of the scene base's shapes with random float32 weights."""
    from rass_mm.diffusion.known_bases import write_random_base

    folder = tmp_path_factory.mktemp('bases') / 'tiny'
    write_random_base(folder, 'scenes-tiny', half=False)
    return folder


@pytest.fixture(scope='session')
def other_base(tmp_path_factory):
    """The same shapes with other random weights."""
    from rass_mm.diffusion.known_bases import write_random_base

    folder = tmp_path_factory.mktemp('bases') / 'other'
    write_random_base(folder, 'scenes-tiny', seed=1, half=False)
    return folder


@pytest.fixture(scope='session')
def scenes(tmp_path_factory):
    """16 training and 4 validation scenes of 96x96 and the degraded copy of the latter."""
    from rass_mm.degradation.builder import build_lq_dataset
    from rass_mm.demo.scenes.generator import write_scenes

    folder = tmp_path_factory.mktemp('data') / 'scenes'
    write_scenes(folder, {'train': 16, 'val': 4}, seed=0, size=(96, 96), workers=1)
    build_lq_dataset(folder / 'img_dir' / 'val', folder / 'img_lq' / 'val', seed=0, workers=1)
    return folder


@pytest.fixture(scope='session')
def adapter(tiny_base, tmp_path_factory):
    """The file of a restorer with random values."""
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.one_step_restorer import OneStepRestorer

    torch.manual_seed(1)
    base = read_base(tiny_base)
    model = OneStepRestorer(base)
    for name, parameter in model.unet.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp('adapter') / 'scr.safetensors'
    model.save(path, base.identity, 'ClassTokens', ['sky', 'car', 'road'])
    return path
