"""The diffusion backbone in mmseg's own `EncoderDecoder`: its prompt, its gradients, and what checkpoints hold."""

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import get_state_dict, save_checkpoint
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.diffusion.adapter_files import save_adapter
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.prompts import ClassTokens, EmptyPrompt
from rass_mm.engine.trained_state import read_provenance
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.segmentation.backbone import DiffusionBackbone
from rass_mm.segmentation.stages import segmentor_stages

EXTRA = 'backbone._extra_state'


@pytest.fixture
def saved(build, tmp_path):
    model, file = build('fcn'), tmp_path / 'model.pth'
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    save_checkpoint({'state_dict': get_state_dict(model), 'meta': {}}, str(file))
    return model, file


@pytest.mark.parametrize(
    ('options', 'fault'),
    [
        ({'features': []}, 'features.*is empty'),
        ({'adapter': {'rank': -1}}, 'rank.*is -1'),
        ({'adapter': {'rank': 0}}, 'rank.*is 0'),
    ],
)
def test_an_empty_feature_list_and_a_rank_below_one_are_refused(tiny_base, options, fault):
    with pytest.raises(ConfigError, match=fault):
        DiffusionBackbone(str(tiny_base), **options)


@pytest.mark.parametrize('name', ['fcn', 'segformer'])
def test_channels_and_strides_say_what_comes_out(build, name):
    model = build(name).eval()
    assert type(model) is EncoderDecoder
    with torch.no_grad():
        features = model.backbone(torch.zeros(1, 3, 64, 96))
    described = zip(model.backbone.channels, model.backbone.strides, strict=True)
    assert [tuple(feature.shape) for feature in features] == [(1, c, 64 // s, 96 // s) for c, s in described]


@pytest.mark.parametrize('classes', ['ScenesDataset', None])
def test_default_prompt_names_the_classes_or_is_empty(build, tiny_base, batch, classes):
    backbone, base = build('fcn', **{'backbone.classes': classes}).backbone.eval(), read_base(tiny_base)
    prompt = ClassTokens(base, list(SCENE_CLASSES)) if classes else EmptyPrompt(base)
    with torch.no_grad():
        found, expected = backbone(batch[0]), backbone.extractor(batch[0], prompt(batch[0]).context)
        other = backbone(batch[0], torch.zeros_like(prompt(batch[0]).context))
    assert all(torch.equal(one, another) for one, another in zip(found, expected, strict=True))
    assert not torch.equal(found[1], other[1])


@pytest.mark.parametrize('name', ['fcn', 'segformer'])
def test_every_trained_parameter_gets_a_gradient_and_no_frozen_one(build, batch, name):
    model = build(name)
    for key, parameter in model.named_parameters():
        if 'lora_B' in key:
            torch.nn.init.normal_(parameter, std=0.02)
    model.parse_losses(model.loss(*batch))[0].backward()
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert {key for key, parameter in model.named_parameters() if parameter.grad is not None} == trained
    assert sum('lora_A' in key for key in trained) > 100 and any(key.startswith('decode_head') for key in trained)


def test_state_holds_exactly_what_trains_and_says_on_what(build, tiny_base):
    model = build('fcn')
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    for state in (model.state_dict(), get_state_dict(model)):
        assert set(state) == trained | {EXTRA}
    record = read_provenance(model.state_dict()[EXTRA])
    assert record['base'] == read_base(tiny_base).identity and record['classes'] == list(SCENE_CLASSES)
    assert record['merged_adapters'] == [] and 'rass_mm' in record['versions']


@pytest.mark.parametrize('strict', [False, True])
def test_round_trip(saved, build, strict):
    model, file = saved
    for load in (load_checkpoint, lambda other, name, **_: other.load_state_dict(torch.load(name)['state_dict'])):
        other = build('fcn')
        load(other, str(file), map_location='cpu', strict=strict)
        mine, theirs = model.state_dict(), other.state_dict()
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)


def refusal(model, file, strict=False):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, str(file), strict=strict)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return str(caught.value)


def test_another_base_is_refused_with_both_identities_and_nothing_is_loaded(saved, build, other_base):
    model, file = saved
    other = build('fcn', base=other_base)
    message = refusal(other, file)
    assert 'another base' in message
    assert model.backbone.identity['weights'] in message and other.backbone.identity['weights'] in message


def test_other_class_names_are_refused(saved, build):
    names = ['ground', *SCENE_CLASSES[1:]]
    message = refusal(build('fcn', **{'backbone.classes': names}), saved[1])
    assert 'class list of the checkpoint differs' in message and 'ground' in message and SCENE_CLASSES[0] in message


def test_other_merged_adapters_are_refused(saved, build, tmp_path):
    model, file = saved
    adapter = tmp_path / 'scr.safetensors'
    save_adapter(model.backbone.extractor.unet, 'seg', adapter, model.backbone.identity)
    assert 'other adapters merged' in refusal(build('fcn', **{'backbone.scr_adapter': str(adapter)}), file)


@pytest.mark.parametrize('fault', ['missing', 'unknown', 'of another shape'])
def test_backbone_tensors_that_do_not_fit_are_refused_even_without_strict(saved, build, fault):
    model, file = saved
    state = get_state_dict(model)
    key = next(key for key in state if 'lora_A' in key)
    if fault == 'missing':
        del state[key]
    elif fault == 'unknown':
        state['backbone.nowhere'] = torch.zeros(1)
    else:
        state[key] = state[key][:-1]
    save_checkpoint({'state_dict': state, 'meta': {}}, str(file))
    assert f'1 {fault}: ' in refusal(build('fcn'), file)


@pytest.fixture
def behind_a_restorer(monkeypatch):
    """A `RestoreThenSegment` around a segmentor that is built already."""

    def wrap(segmentor):
        monkeypatch.setitem(MODELS._module_dict, 'Identity', torch.nn.Identity)
        monkeypatch.setitem(MODELS._module_dict, 'Given', lambda data_preprocessor: segmentor)
        parts = {'restorer': {'type': 'Identity'}, 'segmentor': {'type': 'Given'}, 'data_preprocessor': {}}
        return MODELS.build({'type': 'RestoreThenSegment', **parts})

    return wrap


def test_its_checkpoint_loads_behind_a_restorer(saved, build, other_base, behind_a_restorer):
    model, file = saved
    whole = behind_a_restorer(build('fcn'))
    assert set(whole.state_dict()) == set(model.state_dict())
    load_checkpoint(whole, str(file), strict=True)
    assert torch.equal(whole.decode_head.conv_seg.weight, model.decode_head.conv_seg.weight)
    assert 'another base' in refusal(behind_a_restorer(build('fcn', base=other_base)), file)


def test_its_stages_can_be_timed(build):
    assert [point.stage for point in segmentor_stages(build('fcn'))][:4] == ['prompt', 'encode', 'UNet', 'head']
