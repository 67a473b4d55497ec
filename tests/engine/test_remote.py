"""Checkpoints given as URLs: no scheme downloads or unpickles, and the message contains the download command."""

import builtins
import re

import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint
from torch import nn

from rass_mm.errors import CheckpointError

ADDRESSES = {
    'http://example.org/a/net.pth': 'curl -L -o net.pth http://example.org/a/net.pth\n',
    'https://example.org/a/net.pth?x=1&y=$(z)': "curl -L -o net.pth 'https://example.org/a/net.pth?x=1&y=$(z)'\n",
    'https://example.org': 'curl -L -o checkpoint.pth https://example.org\n',
    's3://bucket/a/net.pth': 'aws s3 cp s3://bucket/a/net.pth net.pth\n',
    'cluster:s3://bucket/net.pth': 'aws s3 cp s3://bucket/net.pth net.pth\n',
    'torchvision://resnet50': r'curl -L -o resnet50-\w+.pth https://download.pytorch.org/models/resnet50-\w+.pth',
    'modelzoo://resnet50': r'curl -L -o resnet50-\w+.pth https://download.pytorch.org/models/resnet50-\w+.pth',
    'open-mmlab://resnet50_v1c': r'curl -L -o \S+.pth https://\S+/\S+.pth',
    'openmmlab://resnet50_v1c': r'curl -L -o \S+.pth https://\S+/\S+.pth',
    'mmcls://vgg16': r"curl -L -o \S+.pth https://\S+.pth\n.*prefix='backbone.' in its init_cfg",
    'petrel://bucket/net.pth': 'client of its storage',
    'pavi://net.pth': 'client of its storage',
    'torchvision://no_such_net': 'client of its storage',
    'open-mmlab://no_such_net': 'client of its storage',
    'HTTPS://example.org/net.pth': 'client of its storage',
    'hf://owner/net.pth': 'client of its storage',
    'jhu://resnet50': 'client of its storage',
}


@pytest.fixture
def no_loading(monkeypatch):
    def refuse(*args, **_):
        raise AssertionError(f'something was downloaded or unpickled: {args}')

    monkeypatch.setattr(torch, 'load', refuse)
    for name in ('mmengine.runner.checkpoint.load_url', 'torch.hub.download_url_to_file'):
        monkeypatch.setattr(name, refuse)
    monkeypatch.setattr(builtins.__import__('urllib.request').request, 'urlopen', refuse)


@pytest.mark.parametrize('address', ADDRESSES)
def test_an_address_is_refused_with_the_command_that_downloads_it(address, no_loading):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(nn.Linear(2, 2), address)
    assert f'The checkpoint {address} is not a local file' in str(caught.value)
    expected = ADDRESSES[address]
    assert expected in str(caught.value) or re.search(expected, str(caught.value))


def test_every_scheme_of_mmengine_is_refused_and_local_files_are_read_safely():
    names = {prefix: loader.__name__ for prefix, loader in CheckpointLoader._schemes.items()}
    assert names.pop('') == 'load_local' and len(names) >= 10
    assert set(names.values()) == {'refuse_remote'}
