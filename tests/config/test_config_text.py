"""Reading of the config text in a checkpoint as literals."""

import math

import pytest
from mmengine.config import Config

import rass_mm
from rass_mm.config import config_from_checkpoint, config_from_text, load_config
from rass_mm.errors import ConfigError


@pytest.mark.parametrize(
    'text',
    [
        'a = open("canary", "w")',
        'import evil_module',
        'a = dict(b=[1, (2, __import__("os"))])',
        'a = [x for x in (1, 2)]',
        'a = 1 if open("canary", "w") else 2',
        'a = f"{open(chr(97), chr(119))}"',
        'a = (lambda: 1)()',
        'a = dict(*[1])',
        'a = dict({1: 2}, **{"b": 3})',
        'a = {**{}}',
        'a = b = 1',
        'a.b = 1',
        'a: int = 1',
        'a = c',
        'a = "x" * 9',
        'a = b"x"',
        'a = ...',
        'a = -"x"',
        'a = {[]: 1}',
        'a =',
        'a = 1\0',
        '_base_ = ["b.py"]',
        'a = ' + '[' * 150 + ']' * 150,
        'a = ' + '-' * 3000 + '1',
        'a = 1  #' + 'x' * 2**20,
        '{"a b": 1}',
    ],
)
def test_anything_but_literals_is_refused_and_not_run(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match='own.pth'):
        config_from_text(text, 'own.pth')
    assert not list(tmp_path.iterdir())


def test_the_message_has_the_key_and_the_code():
    with pytest.raises(ConfigError, match=r"model\.head\[1\]=open\('x'\) is not a literal.*as a \.py file"):
        config_from_text("model = dict(head=[1, open('x')])", 'own.pth')


def test_literals_are_read_as_in_python():
    text = "a = dict({'b c': -1.5, 2: (1, 2)}, d=None)\ne = [inf, -inf, True, {'f'}, '\\n\\'']\ng = {}\nh = ()\n"
    expected = eval(f'dict({text.strip().replace(chr(10), ", ")})', {'inf': math.inf})
    assert config_from_text(text, 'own.pth').to_dict() == expected
    assert math.isnan(config_from_text('a = nan', 'own.pth').a)


@pytest.mark.parametrize('name', ['rass/rass_scenes_tiny.py', 'baselines/mask2former_swin_l_ft_ade20k_lq.py'])
def test_text_written_by_mmengine_is_read_back(name):
    config = load_config(name)
    assert config_from_text(config.pretty_text, 'own.pth').to_dict() == config.to_dict()
    assert Config.fromfile(str(rass_mm.config_path(name))).to_dict() == config.to_dict()


def test_initial_weights_outside_the_current_folder_are_dropped():
    text = """
load_from = '/elsewhere/iter_9.pth'
resume = True
checkpoint_file = 'https://example.org/a.pth'
model = dict(
    pretrained='torchvision://resnet50',
    backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='/elsewhere/a.pth')),
    neck=dict(init_cfg=[dict(type='Pretrained', checkpoint='pretrained/a.pth')]))
"""
    config = config_from_text(text, 'own.pth')
    assert (config.load_from, config.resume, config.checkpoint_file, config.model.pretrained) == (
        None,
        True,
        None,
        None,
    )
    assert config.model.backbone.init_cfg is None
    assert config.model.neck.init_cfg == [dict(type='Pretrained', checkpoint='pretrained/a.pth')]


@pytest.mark.parametrize('checkpoint', [{}, {'meta': None}, {'meta': {'cfg': 3}}, {'message_hub': 'x', 'meta': []}])
def test_a_checkpoint_without_a_config_is_reported(checkpoint):
    with pytest.raises(ConfigError, match=r'own.pth contains no config'):
        config_from_checkpoint(checkpoint, 'own.pth')
