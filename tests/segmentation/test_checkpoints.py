"""Checkpoints: what they hold, and every way in which they must not be loaded."""

import os
import pickle

import pytest
import torch
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import get_state_dict, save_checkpoint

from rass_mm.diffusion.adapter_files import save_adapter
from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.trained_state import read_provenance
from rass_mm.errors import CheckpointError


@pytest.fixture
def saved(build, tmp_path):
    model = build()
    file = tmp_path / 'model.pth'
    save_checkpoint({'state_dict': get_state_dict(model), 'meta': {}}, str(file))
    return model, file


def test_state_holds_exactly_what_trains(build):
    model = build()
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    for state in (model.state_dict(), get_state_dict(model)):
        assert set(state) == trained | {'_extra_state'}


def test_provenance_names_base_classes_and_versions(build, tiny_base):
    record = read_provenance(build().state_dict()['_extra_state'])
    assert record['base']['name'] == tiny_base.name and len(record['base']['weights']) == 16
    assert record['classes'][:2] == ['sky', 'grass'] and record['merged_adapters'] == []
    assert (
        record['versions']['torch'] == torch.__version__.split()[0] or record['versions']['torch'] in torch.__version__
    )


@pytest.mark.parametrize('strict', [False, True])
def test_round_trip_by_mmengine(saved, build, strict):
    model, file = saved
    other = build()
    with torch.no_grad():
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    load_checkpoint(other, str(file), map_location='cpu', strict=strict)
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def test_another_base_is_refused_with_both_identities(saved, build, other_base):
    model, file = saved
    other = build(base=other_base)
    with pytest.raises(CheckpointError, match='another base') as caught:
        load_checkpoint(other, str(file))
    for identity in (model.backbone.base.identity, other.backbone.base.identity):
        assert identity['weights'] in str(caught.value)


def test_another_class_list_is_refused(saved, build):
    _, file = saved
    other = build(classes='CamVidDataset', **{'decode_head.num_classes': 11})
    with pytest.raises(CheckpointError, match='(?s)class list of the checkpoint differs.*12 classes.*11 classes'):
        load_checkpoint(other, str(file))


def test_other_merged_adapters_are_refused(saved, build, tmp_path):
    model, file = saved
    adapter = tmp_path / 'scr.safetensors'
    save_adapter(model.backbone.extractor.unet, 'seg', adapter, model.backbone.base.identity)
    other = build(**{'backbone.scr_adapter': str(adapter)})
    assert other.provenance['merged_adapters'][0]['name'] == 'seg'
    with pytest.raises(CheckpointError, match='other adapters merged'):
        load_checkpoint(other, str(file))


def test_refusal_changes_no_weight(saved, build, other_base):
    _, file = saved
    other = build(base=other_base)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_checkpoint(other, str(file))
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize('fault', ['missing', 'unknown', 'of another shape'])
def test_tensors_that_do_not_fit_are_refused_even_without_strict(saved, build, fault):
    model, file = saved
    state = get_state_dict(model)
    key = 'neck.projections.0.conv1.0.weight'
    if fault == 'missing':
        del state[key]
    elif fault == 'unknown':
        state['neck.nowhere'] = torch.zeros(1)
    else:
        state[key] = state[key][:-1]
    save_checkpoint({'state_dict': state, 'meta': {}}, str(file))
    with pytest.raises(CheckpointError, match=f'1 {fault}: neck'):
        load_checkpoint(build(), str(file), strict=False)


class Harmful:
    def __reduce__(self):
        return os.system, ('touch harmed',)


def test_unsafe_pickle_is_refused_by_name_and_not_run(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'state_dict': {}, 'extra': Harmful()}, 'bad.pth')
    with pytest.raises(CheckpointError, match=r'posix\.system'):
        load_checkpoint(build(), 'bad.pth')
    assert not (tmp_path / 'harmed').exists()


def test_plain_pickle_is_refused_and_not_run(build, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'bad.pth').write_bytes(pickle.dumps({'state_dict': {}, 'extra': Harmful()}))
    with pytest.raises(CheckpointError, match='bad.pth'):
        load_checkpoint(build(), 'bad.pth')
    assert not (tmp_path / 'harmed').exists()


class Reaching:
    """Acts as a harmful file would with an allowed `getattr`."""

    def __reduce__(self):
        return getattr, (torch.Tensor, '__init_subclass__')


def test_getattr_reaches_nothing_but_the_statistics_of_a_history_buffer(build, tmp_path):
    torch.save({'message_hub': HistoryBuffer([1.0], [1])}, tmp_path / 'good.pth')
    assert load_local(tmp_path / 'good.pth')['message_hub'].mean() == 1.0
    torch.save({'state_dict': {}, 'extra': Reaching()}, tmp_path / 'bad.pth')
    with pytest.raises(CheckpointError, match='getattr.*not allowed'):
        load_local(tmp_path / 'bad.pth')


@pytest.mark.parametrize('kept', [0, 100, 0.5, 0.99])
def test_truncated_checkpoint_is_refused(saved, build, kept):
    _, file = saved
    data = file.read_bytes()
    file.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(CheckpointError, match='damaged or incomplete|was not loaded'):
        load_checkpoint(build(), str(file))


def test_missing_checkpoint_is_named(build):
    with pytest.raises(CheckpointError, match='nowhere.pth does not exist'):
        load_checkpoint(build(), 'nowhere.pth')
