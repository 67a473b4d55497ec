"""Checks of the content of a checkpoint."""

import numpy as np
import pytest
import torch

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.trained_state import pack_provenance, read_provenance
from rass_mm.errors import CheckpointError

GOOD = {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': [], 'classes': ['sky']}
WEIGHTS = {'conv.weight': torch.ones(2, 2)}


def load(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    return load_local(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    'content',
    [
        WEIGHTS,
        {'state_dict': WEIGHTS},
        {'model': WEIGHTS, 'epoch': 3},
        {
            'state_dict': WEIGHTS,
            'meta': {'iter': 5, 'dataset_meta': {'classes': ('sky',), 'palette': np.zeros((1, 3))}},
        },
        {'state_dict': {**WEIGHTS, 'attn_mask': torch.full((2,), float('-inf'))}},
        {'state_dict': {**WEIGHTS, '_extra_state': pack_provenance(GOOD)}},
    ],
)
def test_usual_checkpoints_are_read(tmp_path, content):
    assert load(tmp_path, content).keys() == content.keys()


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        ([WEIGHTS], 'list'),
        ({}, 'empty'),
        ({'state_dict': None}, 'state_dict is a NoneType'),
        ({'state_dict': [1]}, 'state_dict is a list'),
        ({'state_dict': {}}, 'empty'),
        ({'state_dict': {0: torch.ones(1)}}, 'key 0'),
        ({'state_dict': {'conv.weight': 5}}, r'conv\.weight'),
        ({'state_dict': {'conv.weight': torch.tensor([float('nan')])}}, r'conv\.weight contains NaN'),
        ({'state_dict': WEIGHTS, 'meta': 'text'}, 'meta'),
        ({'state_dict': WEIGHTS, 'meta': {'iter': 'five'}}, 'iter'),
        ({'state_dict': {**WEIGHTS, '_extra_state': torch.ones(3)}}, '_extra_state'),
    ],
)
def test_other_content_is_named(tmp_path, content, named):
    with pytest.raises(CheckpointError, match=rf'a\.pth.*{named}'):
        load(tmp_path, content)


@pytest.mark.parametrize('key', ['base', 'merged_adapters', 'classes'])
def test_a_record_without_a_key_is_named(key):
    record = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(CheckpointError, match=rf'a\.pth.*{key}'):
        read_provenance(pack_provenance(record), 'a.pth')


def test_a_deep_record_is_refused():
    with pytest.raises(CheckpointError, match='JSON'):
        read_provenance(torch.frombuffer(bytearray(b'[' * 100_000), dtype=torch.uint8))
