"""Prompts, compared with direct use of the base's tokenizer and text model."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from transformers import CLIPTextModel, CLIPTokenizer

from rass_mm.diffusion import prompts
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.prompts import NOBODY, ClassTokens, EmptyPrompt, GroundTruthTagger, Prompt, TagPrompt
from rass_mm.errors import ConfigError

CLASSES = ['sky', 'car', 'traffic light', 'potted plant']
IMAGES = torch.zeros(2, 3, 32, 32)


class FixedTagger:
    """Tagger that always returns the same tags."""

    def __init__(self, *tags):
        self.answer = list(tags)

    def tags(self, images, data_samples=None):
        return self.answer


@pytest.fixture(scope='module')
def base(tiny_base):
    return read_base(tiny_base)


@pytest.fixture(scope='module')
def reference(tiny_base):
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / 'tokenizer')
    model = CLIPTextModel.from_pretrained(tiny_base / 'text_encoder').eval()

    @torch.no_grad()
    def encode(text):
        ids = tokenizer(text, padding='max_length', max_length=77, return_tensors='pt').input_ids
        end = (ids[0] == tokenizer.eos_token_id).nonzero()[0].item()
        return ids[0], end, model(ids).last_hidden_state[0]

    return encode


def no_text_encoder(base):
    pytest.fail('the text encoder was loaded')


def sample(labels):
    return SegDataSample(gt_sem_seg=PixelData(data=torch.as_tensor(labels)[None]))


def test_class_tokens_are_the_end_states_of_the_sentences(base, reference, tmp_path):
    prompt = ClassTokens(base, CLASSES, cache=tmp_path)(IMAGES)
    assert prompt.context.shape == (2, len(CLASSES) + 1, 64) and prompt.context.dtype == torch.float32
    for index, name in enumerate(CLASSES):
        _, end, states = reference(f'a photo of a {name}')
        torch.testing.assert_close(prompt.context[0, index], states[end], atol=1e-5, rtol=1e-5)
    assert torch.equal(prompt.context[0], prompt.context[1])
    assert prompt.owners.tolist() == [[0, 1, 2, 3, NOBODY]] * 2


def test_null_token_is_the_start_state_of_every_sentence(base, reference, tmp_path):
    null = ClassTokens(base, CLASSES, cache=tmp_path).tokens[-1]
    for text in ('a photo of a sky', 'something else entirely', ''):
        torch.testing.assert_close(null, reference(text)[2][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(null, ClassTokens(base, ['road'], cache=tmp_path).tokens[-1], atol=1e-5, rtol=1e-5)


def test_class_tokens_are_stored_and_reused_without_the_text_encoder(base, tmp_path, monkeypatch):
    first = ClassTokens(base, CLASSES, cache=tmp_path)
    monkeypatch.setattr(prompts, 'TextEncoder', no_text_encoder)
    assert torch.equal(ClassTokens(base, CLASSES, cache=tmp_path).tokens, first.tokens)
    assert len([*tmp_path.rglob('*.safetensors')]) == 1


def test_the_default_cache_is_in_the_users_folder(base, tmp_path, monkeypatch):
    monkeypatch.setenv('RASS_MM_CACHE', str(tmp_path / 'own'))
    ClassTokens(base, ['sky'])
    assert [*(tmp_path / 'own').rglob('*.safetensors')]
    monkeypatch.delenv('RASS_MM_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert prompts.cache_folder() == tmp_path / 'xdg' / 'rass_mm'


def test_another_class_list_or_order_is_computed_again(base, tmp_path):
    tokens = ClassTokens(base, ['sky', 'car'], cache=tmp_path).tokens
    turned = ClassTokens(base, ['car', 'sky'], cache=tmp_path).tokens
    assert torch.equal(tokens[0], turned[1]) and torch.equal(tokens[1], turned[0])
    assert ClassTokens(base, ['car'], cache=tmp_path).tokens.shape == (2, 64)


def test_another_base_is_computed_again(base, other_base, tmp_path):
    mine = ClassTokens(base, ['sky'], cache=tmp_path).tokens
    theirs = ClassTokens(read_base(other_base), ['sky'], cache=tmp_path).tokens
    assert not torch.allclose(mine, theirs, atol=1e-3)


def shorten_merges(folder):
    file = folder / 'tokenizer' / 'merges.txt'
    file.write_text('\n'.join(file.read_text().splitlines()[:20]) + '\n')


def change_activation(folder):
    file = folder / 'text_encoder' / 'config.json'
    file.write_text(file.read_text().replace('"gelu"', '"quick_gelu"'))


@pytest.mark.parametrize('change', [shorten_merges, change_activation])
def test_tokens_are_computed_again_if_their_inputs_change(tiny_base, tmp_path, change):
    folder = Path(shutil.copytree(tiny_base, tmp_path / 'changed'))
    cache = tmp_path / 'cache'
    before = ClassTokens(read_base(tiny_base), ['bicyclist'], cache=cache).tokens
    change(folder)
    fresh = ClassTokens(read_base(folder), ['bicyclist'], cache=tmp_path / 'empty').tokens
    assert not torch.equal(fresh, before)
    assert torch.equal(ClassTokens(read_base(folder), ['bicyclist'], cache=cache).tokens, fresh)


def test_empty_prompt_is_the_empty_text(base, reference):
    prompt = EmptyPrompt(base, CLASSES)(IMAGES)
    assert prompt.context.shape == (2, 77, 64)
    torch.testing.assert_close(prompt.context[1], reference('')[2], atol=1e-5, rtol=1e-5)
    assert prompt.owners.shape == (2, 77) and (prompt.owners == NOBODY).all()


def test_tag_prompt_equals_the_joined_text(base, reference):
    tags = [['sky', 'traffic light', 'a tree'], ['potted plant']]
    prompt = TagPrompt(base, CLASSES, FixedTagger(*tags))(IMAGES)
    for row, names in enumerate(tags):
        torch.testing.assert_close(prompt.context[row], reference(', '.join(names))[2], atol=1e-5, rtol=1e-5)


def test_tag_prompt_passes_the_ids_of_the_joined_text_to_the_model(base, reference, monkeypatch):
    prompt = TagPrompt(base, CLASSES, FixedTagger(['sky', 'traffic light', 'a tree'], []))
    seen = []
    encode = prompt.text.encode
    monkeypatch.setattr(prompt.text, 'encode', lambda ids: seen.append(ids) or encode(ids))
    prompt(IMAGES)
    assert torch.equal(seen[0], torch.stack([reference('sky, traffic light, a tree')[0], reference('')[0]]))


def test_owners_mark_exactly_the_tokens_of_each_name(base):
    prompt = TagPrompt(base, CLASSES, FixedTagger(['traffic light', 'tree', 'sky'], ['car']))
    lengths = [len(prompt.text.token_ids(name)) for name in ('traffic light', 'tree', 'sky', 'car')]
    assert lengths[0] > 2 and len(prompt.text.token_ids(',')) == 1
    light, tree, sky, car = lengths
    start, comma = [NOBODY], [NOBODY]
    first = start + [2] * light + comma + [NOBODY] * tree + comma + [0] * sky
    second = start + [1] * car
    owners = prompt(IMAGES).owners.tolist()
    assert owners == [row + [NOBODY] * (77 - len(row)) for row in (first, second)]


def test_prompt_that_does_not_fit_is_refused_with_both_lengths(base):
    prompt = TagPrompt(base, CLASSES, FixedTagger(['sky'] * 39, ['sky']))
    one = len(prompt.text.token_ids('sky'))
    with pytest.raises(ConfigError, match=rf'prompt of {39 * one + 38} tokens .* the 75 .*ClassTokens'):
        prompt(IMAGES)
    prompt.tagger = FixedTagger(['sky'] * 38, ['sky'])  # exactly 75 tokens
    assert one == 1 and prompt(IMAGES).context.shape == (2, 77, 64)


def test_object_without_tags_is_not_a_tagger(base, monkeypatch):
    monkeypatch.setattr(prompts, 'TextEncoder', no_text_encoder)
    with pytest.raises(ConfigError, match='dict is not a tagger'):
        TagPrompt(base, CLASSES, {})


def test_ground_truth_tags_are_the_present_names_in_class_order():
    tagger = GroundTruthTagger(CLASSES)
    samples = [sample([[3, 255], [0, 0]]), sample([[255, 255], [255, 255]])]
    assert tagger.tags(IMAGES, samples) == [['sky', 'potted plant'], []]
    assert GroundTruthTagger(CLASSES, ignore_index=3).tags(IMAGES, [sample([[3, 1]])]) == [['car']]


@pytest.mark.parametrize('samples', [None, [SegDataSample()], [sample([[0]]), SegDataSample()]])
def test_ground_truth_tags_without_labels_are_refused(samples):
    with pytest.raises(ConfigError, match='need labels.*ClassTokens or EmptyPrompt'):
        GroundTruthTagger(CLASSES).tags(IMAGES, samples)


def test_ground_truth_tagger_works_inside_the_prompt(base):
    prompt = TagPrompt(base, CLASSES, GroundTruthTagger(CLASSES))
    owners = prompt(IMAGES, [sample([[0, 2]]), sample([[1, 255]])]).owners
    assert [sorted(set(row.tolist())) for row in owners] == [[NOBODY, 0, 2], [NOBODY, 1]]


def test_no_prompt_writes_into_a_checkpoint_or_trains(base, tmp_path):
    modules = [ClassTokens(base, CLASSES, tmp_path), EmptyPrompt(base), TagPrompt(base, CLASSES, FixedTagger())]
    model = torch.nn.Sequential(*modules)
    assert not model.state_dict()
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_stored_tokens_follow_the_module(base, tmp_path):
    prompt = ClassTokens(base, CLASSES, tmp_path).to(torch.bfloat16)
    assert prompt(IMAGES).context.dtype == torch.bfloat16 and prompt(IMAGES).owners.dtype == torch.int64


def test_repeated_keeps_each_images_windows_together():
    prompt = Prompt(torch.arange(2).view(2, 1, 1).float(), torch.tensor([[5], [6]])).repeated(3)
    assert prompt.context.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    assert prompt.owners.flatten().tolist() == [5, 5, 5, 6, 6, 6]


class LearnedTagger(torch.nn.Module):
    """Tagger with its own weights."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def tags(self, images, data_samples=None):
        return [['sky']] * len(images)


def test_tagger_that_is_a_module_follows_but_is_neither_saved_nor_trained(base):
    prompt = TagPrompt(base, CLASSES, LearnedTagger()).eval().double()
    assert not prompt.tagger.training and prompt.tagger.layer.weight.dtype == torch.float64
    assert not prompt.state_dict() and not any(parameter.requires_grad for parameter in prompt.parameters())


def test_prompt_reports_whether_it_needs_labels(base):
    assert TagPrompt(base, CLASSES, GroundTruthTagger(CLASSES)).needs_labels
    assert not TagPrompt(base, CLASSES, FixedTagger([])).needs_labels


def test_truncated_tags_are_those_the_tokenizer_would_keep(base, tiny_base, reference):
    names = ['traffic light', 'a tree', 'sky'] * 20
    prompt = TagPrompt(base, CLASSES, FixedTagger(names, ['sky']), truncate=True)
    assert len(prompt._tokens(names)) == 75
    tokenizer = CLIPTokenizer.from_pretrained(tiny_base / 'tokenizer')
    cut = tokenizer(', '.join(names), truncation=True, max_length=77, return_tensors='pt').input_ids
    model = CLIPTextModel.from_pretrained(tiny_base / 'text_encoder').eval()
    found = prompt(IMAGES)
    torch.testing.assert_close(found.context[0], model(cut).last_hidden_state[0].detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.context[1], reference('sky')[2], atol=1e-5, rtol=1e-5)
    whole = TagPrompt(base, CLASSES, FixedTagger(), truncate=False)._tokens(names)
    assert found.owners[0].tolist() == [NOBODY, *(owner for _, owner in whole[:75]), NOBODY]


RELEASED_TEXTS = [
    ((), ''),
    (('sky',), 'sky'),
    (('sky', 'tree', 'road'), 'sky  tree  road'),
    (('traffic light', 'a tree'), 'traffic light  a tree'),
    (('salt, pepper', 'cup'), 'salt  pepper  cup'),
    (('[street] sign', 'car'), '[street] sign  car'),
    (("child's toy", 'car'), '"childs toy"  car'),
]


@pytest.mark.parametrize(('tags', 'text'), RELEASED_TEXTS)
def test_list_style_is_the_released_prompt(base, reference, tags, text):
    """Checks the text, its tokens and their owners. The examples equal the rule applied to a list in Python."""
    assert text == str(list(tags)).strip('[] ,').replace("'", '').replace(',', ' ')
    module = TagPrompt(base, CLASSES, FixedTagger(list(tags), ['sky']), style='list')
    assert module.written(tags) == text
    prompt = module(IMAGES)
    torch.testing.assert_close(prompt.context[0], reference(text)[2], atol=1e-5, rtol=1e-5)
    owned = {CLASSES[owner] for owner in prompt.owners[0].tolist() if owner != NOBODY}
    assert owned == set(tags) & set(CLASSES)


def test_comma_style_equals_osediffs_prompt(base):
    module = TagPrompt(base, CLASSES, FixedTagger(), suffix=', ,')
    assert module.written(["child's toy", 'sky']) == "child's toy, sky, ,"


def test_unknown_style_is_refused(base):
    with pytest.raises(ConfigError, match="style is 'spaces', but it must be one of commas, list"):
        TagPrompt(base, CLASSES, FixedTagger(), style='spaces')
