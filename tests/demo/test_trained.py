"""The models of a demo are found by `rass-mm app`, and errors say how to make them."""

import json
import re

import pytest

from rass_mm.demo.base.shipped import shipped_base
from rass_mm.demo.settings import DemoSettings
from rass_mm.demo.trained import trained_models
from rass_mm.errors import ConfigError
from rass_mm_cli.main import main

FILES = ('scr_scenes_tiny/scr_adapter.safetensors', 'rass_scenes_tiny-scr/iter_7.pth', 'resnet_scenes_tiny/iter_7.pth')


@pytest.fixture
def demo(tmp_path):
    (tmp_path / 'demo.json').write_text(json.dumps(DemoSettings(segmentor_steps=7).record))
    for name in FILES:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b'')
    return tmp_path


def test_the_models_of_a_demo_are_found(demo):
    found = trained_models(demo)
    assert [found.adapter, found.checkpoint, found.baseline] == [demo / name for name in FILES]
    assert found.base == shipped_base()


@pytest.mark.parametrize('name', FILES)
def test_an_unfinished_demo_is_named(demo, name):
    (demo / name).unlink()
    with pytest.raises(ConfigError, match=f'not finished: .*{name}.*make demo'):
        trained_models(demo)


def test_a_damaged_record_is_refused(demo):
    (demo / 'demo.json').write_text(json.dumps({**DemoSettings().record, 'segmentor_steps': '../7'}))
    with pytest.raises(ConfigError, match='integers'):
        trained_models(demo)


def test_the_command_says_how_to_get_models(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for options, words in (
        ([], 'no demo in .*demo_out.*make demo'),
        (['--demo', 'other'], 'no demo in .*other'),
        (['--demo', 'other', '--checkpoint', 'a.pth'], '--demo cannot be combined with --checkpoint'),
        (['--adapter', 'a.safetensors'], 'Set --base'),
        (['--checkpoint', 'a.pth'], 'a.pth'),
    ):
        assert main(['app', *options]) == 1
        assert re.search(words, capsys.readouterr().err, re.DOTALL), words
