"""Errors of the benchmark for wrong options and variants."""

import pytest

from rass_mm.analysis.speed.variants import Variant, parse_variant
from rass_mm.errors import ConfigError
from rass_mm_cli.main import run_command

RASS = 'rass/rass_scenes_tiny.py'
FIRST = Variant('a', RASS, dtype='bfloat16', compile=True, windows=4, overrides={'model.backbone.base': 'b'})


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--dtype', 'int8'], "dtype is 'int8'. Set it to one of float32, bfloat16, float16"),
        (['--size', '100x96'], 'both sides must be multiples of 32'),
        (['--device', 'nowhere'], "Device 'nowhere' cannot be used"),
        (['--variant', 'no name'], "--variant 'no name' cannot be parsed"),
        (['--variant', f'rass_scenes_tiny: {RASS}'], "Two variants are named 'rass_scenes_tiny'"),
        (['--against', 'rass/none.py'], 'No file rass/none.py, and no shipped config of that name'),
        (['--against', '_base_/tiny_runtime.py'], 'has no model'),
    ],
    ids=['dtype', 'size', 'device', 'variant', 'names', 'config', 'model'],
)
def test_wrong_options_are_explained(options, message, tiny_base, capsys):
    status = run_command('benchmark', [RASS, *options, '--cfg-options', f'model.backbone.base={tiny_base}'])
    captured = capsys.readouterr()
    assert status == 1 and message in captured.err and not captured.out


def test_missing_base_names_the_expected_files(tmp_path, capsys):
    assert run_command('benchmark', [RASS, '--cfg-options', f'model.backbone.base={tmp_path}/none']) == 1
    assert 'none/unet/config.json' in (message := capsys.readouterr().err) and 'rass-mm random-base' in message


def test_missing_checkpoint_is_named(tmp_path, capsys):
    assert run_command('benchmark', [RASS, f'{tmp_path}/none.pth']) == 1
    assert 'none.pth does not exist' in capsys.readouterr().err


@pytest.mark.parametrize('options', [['--size', '512'], ['--iterations', '0'], ['--batch', 'x']])
def test_numbers_are_checked_by_the_parser(options, capsys):
    with pytest.raises(SystemExit):
        run_command('benchmark', [RASS, *options])
    assert options[1] in capsys.readouterr().err


def test_variant_takes_missing_options_from_the_first():
    found = parse_variant(f'b: {RASS} dtype=float16 compile=0 model.neck.width=16', FIRST)
    assert (found.name, found.dtype, found.compile, found.windows) == ('b', 'float16', False, 4)
    assert found.overrides == {'model.backbone.base': 'b', 'model.neck.width': 16}
    other = parse_variant('c: other.py x.pth windows=2', FIRST)
    assert (other.checkpoint, other.windows, other.overrides) == ('x.pth', 2, {})


def test_released_runs_the_first_config_without_options():
    found = parse_variant('released', FIRST)
    assert (found.config, found.overrides) == (FIRST.config, FIRST.overrides)
    assert (found.dtype, found.compile, found.channels_last, found.windows) == ('float32', False, False, 1)
    assert found.released and found.name == 'released'


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('b: x.py speed=9', "unknown option 'speed'"),
        ('b: x.py compile=yes', "compile is 'yes', but it must be 0 or 1"),
        ('b: x.py windows=-1', "windows is '-1'"),
        ('b: x.py windows=0', 'windows is 0, but it must be at least 1'),
        ('b: x.py path=released', "unknown option 'path'"),
        ('b: x.py y.pth z.pth', 'cannot be parsed'),
        ('b: x.py dtype=int8', "dtype is 'int8'"),
    ],
)
def test_wrong_variants_are_explained(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_variant(text, FIRST)
