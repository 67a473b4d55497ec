"""Checks of the content of a checkpoint."""

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.structure import check_classes, weights_of
from rass_mm.engine.trained_state import pack_provenance, read_provenance
from rass_mm.errors import CheckpointError
from rass_mm.segmentation.fitting import check_training

GOOD = {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': [], 'classes': ['sky']}
WEIGHTS = {'conv.weight': torch.ones(2, 2)}
HUB = {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}}
POISONED = {'conv.weight': torch.tensor([float('nan')])}


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
        {'state_dict': {**WEIGHTS, 'x.causal_mask': torch.full((2, 2), float('-inf')).triu(1)}},
        {'state_dict': {**WEIGHTS, 'x.min_val': torch.tensor(float('inf')), 'x.max_val': torch.tensor(float('-inf'))}},
        {'state_dict': {**WEIGHTS, '_extra_state': pack_provenance(GOOD)}},
        {'state_dict': {**WEIGHTS, '_extra_state': torch.ones(3), 'conv._extra_state': {'scale': 2}}},
        {'state_dict': WEIGHTS, 'model': 'resnet', 'own': {'a': None}, 'args': ['x']},
        {'state_dict': WEIGHTS, 'meta': {'iter': None, 'epoch': None, 'cfg': None}},
        {'params_ema': WEIGHTS, 'params': WEIGHTS},
        {'teacher': WEIGHTS, 'student': WEIGHTS, 'epoch': 3, 'model': 'vit'},
        {'module': {'backbone': WEIGHTS}, 'optimizer': {}},
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
        ({**POISONED, 'optimizer': {}}, r'conv\.weight contains NaN'),
        ({**POISONED, 'other': WEIGHTS}, r'conv\.weight contains NaN'),
        ({**POISONED, 'model': WEIGHTS}, r'conv\.weight contains NaN'),
        ({'state_dict': WEIGHTS, 'meta': 'text'}, 'meta'),
        ({'state_dict': {'_extra_state': 'text'}}, 'must contain tensors'),
        ({'meta': {'iter': 5}, 'own': {'a': 5}}, 'must contain tensors'),
        ({'state_dict': {'attn_mask': torch.tensor([0.5, float('-inf')])}}, 'attn_mask contains NaN or infinity'),
        ({'state_dict': {'mask': torch.tensor([float('nan')])}}, 'mask contains NaN'),
        ({'state_dict': {'mask_token': torch.tensor([0.5, float('-inf')])}}, 'mask_token contains NaN or infinity'),
        ({'state_dict': {'x.unmasked': torch.tensor([float('-inf')])}}, 'unmasked contains NaN or infinity'),
        ({'state_dict': {'x.max_val': torch.tensor([float('nan')])}}, 'max_val contains NaN'),
    ],
)
def test_other_content_is_named(tmp_path, content, named):
    with pytest.raises(CheckpointError, match=rf'a\.pth.*{named}'):
        load(tmp_path, content)


def test_entries_of_meta_are_settled(tmp_path):
    assert load(tmp_path, {'state_dict': WEIGHTS, 'meta': None})['meta'] == {}
    meta = {'iter': torch.tensor(5), 'epoch': np.int64(3), 'other': torch.ones(2)}
    found = load(tmp_path, {'state_dict': WEIGHTS, 'meta': meta})['meta']
    assert (found['iter'], found['epoch']) == (5, 3) and type(found['iter']) is type(found['epoch']) is int
    assert found['other'].shape == (2,)


@pytest.mark.parametrize(
    ('meta', 'said'),
    [
        ({'epoch': 3.0}, 'epoch is 3.0'),
        ({'epoch': 'best'}, "epoch is 'best'"),
        ({'iter': torch.tensor(2.5)}, 'iter'),
        ({'cfg': {'model': 1}}, 'cfg'),
        ({'dataset_meta': {'classes': 'sky'}}, 'classes'),
    ],
)
def test_wrong_values_of_meta_are_refused_only_where_they_are_needed(tmp_path, monkeypatch, meta, said):
    warnings = []
    monkeypatch.setattr('rass_mm.engine.structure.print_log', lambda text, *_: warnings.append(text))
    content = load(tmp_path, {'state_dict': WEIGHTS, 'meta': meta})
    assert len(warnings) == 1 and said in warnings[0] and 'a.pth' in warnings[0]
    progress = {'meta': {'epoch': 1, 'iter': 5, **content['meta']}, 'message_hub': HUB}
    with pytest.raises(CheckpointError, match=f'a.pth: meta.*{said.split()[0]}'):
        check_training({**content, **progress}, 'a.pth')


def test_classes_are_checked_where_they_are_used(tmp_path):
    with pytest.raises(CheckpointError, match=r'a\.pth.*classes is 5'):
        check_classes(load(tmp_path, {'state_dict': WEIGHTS, 'meta': {'dataset_meta': {'classes': 5}}}), 'a.pth')
    for classes in (['sky'], ('sky',), 'sky', None):
        check_classes({'meta': {'dataset_meta': {'classes': classes}}}, 'a.pth')
    check_classes({'meta': {}}, 'a.pth')


def test_a_count_of_batches_may_be_a_number(tmp_path):
    layer = torch.nn.BatchNorm2d(2)
    torch.save({'state_dict': {**layer.state_dict(), 'num_batches_tracked': 5}}, tmp_path / 'a.pth')
    load_checkpoint(layer, str(tmp_path / 'a.pth'))
    assert layer.num_batches_tracked == 5


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        ({'params_ema': WEIGHTS, 'params': WEIGHTS}, 'params_ema, params'),
        ({'teacher': WEIGHTS, 'epoch': 3}, 'teacher'),
        ({'module': {'backbone': WEIGHTS}}, 'module'),
    ],
)
def test_weights_elsewhere_are_named_where_they_are_loaded(tmp_path, content, named):
    model = torch.nn.Linear(2, 2)
    torch.save(content, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'a\.pth has no state_dict. Its tensors are in {named}\.'):
        weights_of(load_local(tmp_path / 'a.pth'), str(tmp_path / 'a.pth'))
    with pytest.raises(CheckpointError, match=f'has no state_dict. Its tensors are in {named}'):
        load_checkpoint(model, str(tmp_path / 'a.pth'))


@pytest.mark.parametrize('key', ['base', 'merged_adapters', 'classes'])
def test_a_record_without_a_key_is_named(key):
    record = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(CheckpointError, match=rf'a\.pth.*{key}'):
        read_provenance(pack_provenance(record), 'a.pth')


def test_a_deep_record_is_refused():
    with pytest.raises(CheckpointError, match='JSON'):
        read_provenance(torch.frombuffer(bytearray(b'[' * 100_000), dtype=torch.uint8))
