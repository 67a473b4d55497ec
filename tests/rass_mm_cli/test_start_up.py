"""`rass-mm` without importing the package: help, version, usage errors, and the CPU time of each."""

import resource
import subprocess
import sys
from importlib import import_module

import pytest
from commands import ROOT, python, run
from PIL import Image

from rass_mm import __version__
from rass_mm.errors import InstallationError
from rass_mm_cli import start
from rass_mm_cli.main import main, parser_of, run_command
from rass_mm_cli.parser import CommandParser
from rass_mm_cli.table import COMMANDS

LIMIT = 1.0
"""Maximum CPU seconds of these commands. Importing the package would take 6 to 8 seconds."""
SEGMENTATION, UNUSED = ('mmseg', 'mmdet'), ('mmagic', 'pandas')
LIBRARIES = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'diffusers', 'rass_mm')


ANSWERS = [[], ['--help'], ['--version'], ['doctor'], ['doctor', '--help'], ['make-lqq']]
ANSWERS += [['restore', '--help'], ['train', '-h'], ['help', 'segment']]


@pytest.mark.parametrize('arguments', ANSWERS)
def test_answers_import_no_library_and_take_less_than_a_second_of_cpu(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = python('-X', 'importtime', '-m', 'rass_mm_cli', *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LIMIT
    imported = imports(done)
    assert 'rass_mm_cli.table' in imported and not imported & set(LIBRARIES)


def imports(done):
    """Names of the modules that a process run with `-X importtime` has imported, its worker processes included."""
    return {line.rpartition('|')[2].strip() for line in done.stderr.splitlines() if line.startswith('import time:')}


@pytest.mark.parametrize('name', [name for name in COMMANDS if name != 'doctor'])
def test_stored_help_is_that_of_the_parser(name, monkeypatch, capsys):
    monkeypatch.setenv('COLUMNS', str(start.WIDTH))
    assert main([name, '--help']) == 0
    expected = parser_of(name, import_module(COMMANDS[name].module)).format_help()
    assert capsys.readouterr().out == expected, 'run python tools/write_help.py'


def test_every_stored_page_belongs_to_a_command():
    assert {page.stem for page in start.PAGES.iterdir()} == set(COMMANDS) - {'doctor'}


def test_restoring_imports_no_segmentation_library(tiny_base, adapter, tmp_path):
    photo = tmp_path / 'photo.png'
    Image.new('RGB', (40, 40), 'green').save(photo)
    command = ['restore', photo, tmp_path / 'out', '--adapter', adapter, '--base', tiny_base]
    done = python('-X', 'importtime', '-m', 'rass_mm_cli', *command)
    assert done.returncode == 0 and Image.open(tmp_path / 'out' / 'photo.png').size == (40, 40)
    assert 'diffusers' in imports(done) and not imports(done) & {*SEGMENTATION, *UNUSED, 'matplotlib'}


def test_workers_of_make_lq_import_no_network_library(scenes, tmp_path):
    folder = scenes / 'img_dir' / 'val'
    # -X importtime also applies to the fork server, which imports the modules of the workers.
    done = python('-X', 'importtime', '-m', 'rass_mm_cli', 'make-lq', folder, tmp_path / 'lq', '--workers', '2')
    assert done.returncode == 0 and len(list((tmp_path / 'lq').glob('*.png'))) == len(list(folder.glob('*.png')))
    assert done.stderr.count(' rass_mm.degradation.builder\n') == 2  # the command and the fork server
    assert not imports(done) & {*SEGMENTATION, *UNUSED, 'diffusers', 'transformers', 'matplotlib'}


SEQUENCE = """
import os, sys
from rass_mm_cli.main import main
assert main(['configs']) == 0 and 'mmseg' not in sys.modules and 'RASS_MM_PLUGIN' not in os.environ
sys.exit(main(sys.argv[1:]))
"""


def test_training_registers_the_plugin_after_a_command_without_it(scenes, tiny_base, tmp_path):
    values = [f'train_dataloader.dataset.data_root={scenes}', f'model.backbone.base={tiny_base}']
    values += ['train_dataloader.batch_size=2', 'train_cfg.max_iters=1', 'default_hooks.logger.interval=1']
    values += ['val_dataloader=None', 'val_cfg=None', 'val_evaluator=None', 'default_hooks.checkpoint.save_best=None']
    command = ['train', 'rass/rass_scenes_tiny.py', '--work-dir', tmp_path, '--cfg-options', *values]
    done = python('-X', 'importtime', '-c', SEQUENCE, *command)
    assert done.returncode == 0, done.stderr[-2000:]
    # mmdet imports scikit-learn, and thereby pandas, if it is installed. nncf requires it
    unused = set(UNUSED) - ({'pandas'} if 'sklearn' in imports(done) else set())
    assert set(SEGMENTATION) <= imports(done) and not imports(done) & unused
    assert list(tmp_path.glob('*.pth'))


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
    assert capsys.readouterr().err == '\nerror: rass_mm cannot be imported: No module named rass_mm\n'


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
