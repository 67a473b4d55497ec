"""YAML configs and other YAML files are read without creating objects and within limits."""

import time

import mmengine
import pytest
import yaml

from rass_mm.config import load_config
from rass_mm.errors import ConfigError

TAGGED = {
    '!!python/object/apply:os.system': '!!python/object/apply:os.system ["touch canary"]',
    '!!python/object/new:os.system': '!!python/object/new:os.system ["touch canary"]',
    '!!python/name:os.system': '!!python/name:os.system',
    '!!python/module:evil_module': '!!python/module:evil_module',
    '!!binary': '!!binary aGk=',
    '!!set': '!!set {x}',
    '!own': '!own {a: 1}',
}


@pytest.mark.parametrize('tag', TAGGED)
def test_a_tag_is_refused_with_its_file_line_and_name(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own.yaml').write_text(f'model:\n  type: RASS\n  head: {TAGGED[tag]}\n')
    with pytest.raises(ConfigError) as caught:
        load_config('own.yaml')
    assert f'{tmp_path}/own.yaml:3' in str(caught.value) and tag.lstrip('!') in str(caught.value)
    assert not (tmp_path / 'canary').exists()


def test_mmengine_reads_other_yaml_files_as_data_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'annotations.yaml').write_text(TAGGED['!!python/object/apply:os.system'])
    with pytest.raises(yaml.YAMLError, match='os.system'):
        mmengine.load('annotations.yaml')
    assert not (tmp_path / 'canary').exists()
    mmengine.dump({'a': (1, [2.5, None])}, 'own.yml')
    assert mmengine.load('own.yml') == {'a': (1, [2.5, None])}


BOMBS = {
    'laughs': 'a0: &a0 [x, x]\n' + ''.join(f'a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n' for i in range(30)),
    'merges': 'a0: &a0 {x: 1}\n' + ''.join(f'a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n' for i in range(30)),
    'strings': f'a: &a {"x" * 1_000_000}\nb: [' + '*a, ' * 1000 + '*a]\n',
    'itself': 'a: &a [*a]\n',
    'undefined': 'a: *b\n',
    'deep': 'a: ' + '[' * 20_000 + ']' * 20_000,
    'deep blocks': ''.join(f'{" " * i}a:\n' for i in range(1500)),
    'wide': 'a: [' + '1,' * 300_000 + '1]',
    'two documents': 'a: 1\n---\na: 2\n',
    'not closed': 'a: [1, 2\n',
    'no such day': 'a: 2024-02-31\n',
    'a day': 'a: 2024-02-01\n',
    'list as key': '? [1, 2]\n: 3\n',
    'long number': f'a: {"9" * 10_000}\n',
    'a list': '- a\n- b\n',
    'empty': '',
}


@pytest.mark.parametrize('bomb', BOMBS)
def test_a_bomb_or_a_broken_file_is_an_error_within_seconds(bomb, tmp_path):
    (tmp_path / 'own.yaml').write_text(BOMBS[bomb])
    start = time.process_time()
    with pytest.raises(ConfigError, match='own.yaml'):
        load_config(tmp_path / 'own.yaml')
    assert time.process_time() - start < 5


def test_anchors_aliases_and_merges_are_read(tmp_path):
    text = (
        'norm: &norm {type: SyncBN, requires_grad: true}\na: {norm_cfg: *norm}\nb: {<<: *norm, type: BN}\nc: {0: x}\n'
    )
    (tmp_path / 'own.yaml').write_text(text)
    norm = {'type': 'SyncBN', 'requires_grad': True}
    expected = {'norm': norm, 'a': {'norm_cfg': norm}, 'b': {**norm, 'type': 'BN'}, 'c': {0: 'x'}}
    assert load_config(tmp_path / 'own.yaml').to_dict() == expected
