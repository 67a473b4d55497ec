"""`rass-mm` without importing the package: help, version, usage errors, and the CPU time of each."""

import resource
import subprocess
import sys
from importlib import import_module

import pytest
from commands import ROOT, python, run

from rass_mm import __version__
from rass_mm.errors import InstallationError
from rass_mm_cli.main import main, run_command
from rass_mm_cli.parser import CommandParser
from rass_mm_cli.table import COMMANDS

LIMIT = 1.0
"""Maximum CPU seconds of these commands. Importing the package would take 6 to 8 seconds."""
LIBRARIES = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'diffusers', 'rass_mm')


@pytest.mark.parametrize('arguments', [[], ['--help'], ['--version'], ['doctor'], ['doctor', '--help'], ['make-lqq']])
def test_answers_import_no_library_and_take_less_than_a_second_of_cpu(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python('-X', 'importtime', '-m', 'rass_mm_cli', *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LIMIT
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines() if line.startswith('import time:')}
    assert 'rass_mm_cli.table' in imported and not imported & set(LIBRARIES)


def test_help_lists_every_command_once_by_group(capsys):
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(['--help']) == 0 and capsys.readouterr().out == alone
    for name, command in COMMANDS.items():
        assert alone.count(f'\n  {name} ') == 1 and command.help in alone
    groups = list(dict.fromkeys(command.group for command in COMMANDS.values()))
    assert [line[:-1] for line in alone.splitlines() if line.endswith(':')] == groups


def test_version_is_that_of_the_package(capsys):
    assert main(['--version']) == 0
    assert capsys.readouterr().out == f'{__version__}\n'


@pytest.mark.parametrize(
    ('typed', 'meant'), [('trian', 'train'), ('make_lq', 'make-lq'), ('benchmarks', 'benchmark'), ('docter', 'doctor')]
)
def test_an_unknown_command_names_the_nearest(typed, meant, capsys):
    assert main([typed]) == 2
    assert capsys.readouterr().err.startswith(
        f'error: there is no command {typed!r}. Did you mean {meant}? Run rass-mm --help'
    )


def test_a_command_unlike_any_other_names_only_the_help(capsys):
    assert main(['zzzz']) == 2
    assert 'Did you mean' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'meant'),
    [(['train', 'a.py', '--resumee'], '--resume'), (['restore', 'a', 'b', '--adaptor', 'x'], '--adapter')],
)
def test_a_misspelled_option_names_the_nearest(arguments, meant, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    message = capsys.readouterr().err
    assert left.value.code == 2
    # argparse reports a missing required option first, otherwise the unknown option with a suggestion.
    assert f'. Did you mean {meant}?' in message or f'required: {meant}' in message


def test_a_misspelled_choice_names_the_nearest(capsys):
    parser = CommandParser(prog='x')
    parser.add_argument('--kind', choices=['blur', 'noise'])
    with pytest.raises(SystemExit):
        parser.parse_args(['--kind', 'niose'])
    assert '. Did you mean noise?' in capsys.readouterr().err


@pytest.mark.parametrize(('typed', 'meant'), [('--versoin', '--version'), ('--hlep', '--help')])
def test_a_misspelled_option_without_a_command_names_the_nearest(typed, meant, capsys):
    assert main([typed]) == 2
    assert capsys.readouterr().err.startswith(
        f'error: there is no option {typed!r}. Did you mean {meant}? Run rass-mm --help'
    )


def test_help_with_a_name_is_the_help_of_that_command(capsys):
    pages = []
    for arguments in (['help', 'doctor'], ['doctor', '--help']):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 0
        pages.append(capsys.readouterr().out)
    assert pages[0] == pages[1] and pages[0].startswith('usage: rass-mm doctor')
    assert main(['help', 'docter']) == 2 and 'Did you mean doctor?' in capsys.readouterr().err


def test_an_explained_installation_error_is_printed_once_and_unchanged(capsys, monkeypatch):
    def refuse(name):
        raise InstallationError(f'rass_mm cannot be imported: No module named {name}')

    monkeypatch.setattr('rass_mm_cli.main.importlib.import_module', refuse)
    assert run_command('train', []) == 1
    assert capsys.readouterr().err == '\nerror: rass_mm cannot be imported: No module named rass_mm.cli.train\n'


def test_layouts_of_a_random_base_are_choices(capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        main(['random-base', str(tmp_path / 'base'), '--layout', 'sd2-base'])
    assert left.value.code == 2 and 'Did you mean sd21-base?' in capsys.readouterr().err


@pytest.mark.parametrize('program', ['rass-mm test', 'tools/test.py'])
@pytest.mark.parametrize('config', ['baselines/resnet_scenes_tiny.py', 'scr/scr_scenes_tiny.py'])
def test_a_test_without_checkpoint_names_its_command_before_the_model_is_built(program, config, capsys, monkeypatch):
    monkeypatch.setattr('rass_mm.apis.test', None)
    assert run_command('test', [config], None if program == 'rass-mm test' else program) == 1
    message = capsys.readouterr().err
    assert f'{config}: the model has trainable parameters, but no checkpoint was given' in message
    assert f'{program} CONFIG CHECKPOINT' in message


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_module_with_its_arguments(name):
    parser = CommandParser(prog=name)
    import_module(COMMANDS[name].module).add_arguments(parser)
    assert callable(parser.get_default('run'))
    undocumented = [action.dest for action in parser._actions if not action.help]
    assert not undocumented


def test_a_similar_config_name_is_suggested():
    done = python('-m', 'rass_mm_cli', 'train', 'rass/rass_scene_tiny.py')
    assert done.returncode == 1 and 'Did you mean rass/rass_scenes_tiny.py?' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('tool', ['train.py', 'test.py', 'benchmark.py', 'make_lq_dataset.py'])
def test_tools_name_themselves_in_their_help(tool):
    done = run(sys.executable, ROOT / 'tools' / tool, '--help')
    assert done.returncode == 0 and done.stdout.startswith(f'usage: tools/{tool}')


def test_show_without_a_display_says_so(scenes, tmp_path):
    done = python(
        *('-m', 'rass_mm_cli', 'test', 'baselines/resnet_scenes_tiny.py', 'none.pth', '--show', '--wait-time', '0.1'),
        *('--work-dir', tmp_path, '--cfg-options', f'test_dataloader.dataset.data_root={scenes}'),
        env={'MPLBACKEND': 'Agg', 'DISPLAY': ''},
    )
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    assert '--show needs a display, but none was found. Write the pictures with --show-dir DIR.' in done.stderr


def test_the_table_needs_nothing_but_the_standard_library(tmp_path):
    (tmp_path / 'rass_mm_cli').symlink_to(ROOT / 'rass_mm_cli')
    done = subprocess.run(
        [sys.executable, '-S', '-c', 'import rass_mm_cli.main, rass_mm_cli.doctor; print("loaded")'],
        cwd=tmp_path, env={'PYTHONPATH': str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout == 'loaded\n', done.stderr
