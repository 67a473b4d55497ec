"""Pages that keep their word: links lead somewhere, commands are those of the parsers, examples name what exists."""

import importlib
import importlib.util
import json
import pkgutil
import re
import sys
from functools import cache, reduce
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pages
import pytest
import torch
import yaml
from commands import ROOT, python, tools
from mmseg.apis import init_model
from mmseg.registry import DATASETS, MODELS

from experiments import cli as experiments_cli
from rass_mm import __version__
from rass_mm.config import load_config
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.prompts import NOBODY
from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.trained_state import PROVENANCE, read_provenance
from rass_mm.errors import ConfigError
from rass_mm_cli.parser import CommandParser
from rass_mm_cli.table import COMMANDS

TOOLS = {
    'tools/train.py': 'train',
    'tools/test.py': 'test',
    'tools/make_lq_dataset.py': 'make-lq',
    'tools/benchmark.py': 'benchmark',
}
SHARDED = {'tools/dist_segment.sh': 'segment', 'tools/dist_restore.sh': 'restore'}
FOREIGN = {'cd', 'git', 'hf', 'pip', 'pre-commit', 'tensorboard'}
"""Programs of others that pages call."""
FOREIGN_OPTIONS = {'--array', '--extra-index-url', '--force-reinstall', '--help', '--no-deps', '--require-hashes'}
FOREIGN_OPTIONS |= {'--version'}
by_page = pytest.mark.parametrize('page', pages.PAGES, ids=pages.name)


@cache
def parser_of(command):
    parser = CommandParser(prog=f'rass-mm {command}')
    importlib.import_module(COMMANDS[command].module).add_arguments(parser)
    return parser


@cache
def floors():
    spec = importlib.util.spec_from_file_location('draw_floors', ROOT / 'docs' / 'draw_floors.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def config_of(file):
    return load_config(file)


@by_page
def test_links_lead_somewhere(page):
    for target in pages.links(page):
        if '://' in target:
            parts = urlsplit(target)
            assert parts.scheme in ('http', 'https') and re.fullmatch(r'[\w.-]+\.\w+', parts.netloc), target
            continue
        path, _, anchor = target.partition('#')
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f'{target}: no such file'
        assert file.is_relative_to(ROOT), f'{target}: outside the project'
        assert file.is_file() or (file / 'README.md').is_file(), f'{target}: a folder without a README'
        assert not anchor or anchor in pages.anchors(file), f'{target}: {sorted(pages.anchors(file))}'


@by_page
def test_commands_parse(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(experiments_cli, 'guarded', lambda arguments: 0)
    found = []
    for block in pages.blocks(page, 'bash'):
        for words in pages.command_lines(block.text):
            try:
                found.append(parsed(words))
            except SystemExit:
                pytest.fail(f'{page}:{block.line}: {" ".join(words)}\n{capsys.readouterr().err}')
    shown = pages.named_files(page)
    dumped = dict(map(dumped_config, (arguments for arguments in found if hasattr(arguments, 'resume'))))
    for arguments in found:
        check_configs(arguments, shown, dumped)


def dumped_config(training):
    """(path of the config that a training writes into its work folder, config of the training)."""
    file = Path(training.config)
    return str(Path(training.work_dir or Path('work_dirs', file.stem)) / file.name), training.config


def parsed(words):
    """The namespace of one of our commands, None for one of make's, the experiments' or other people's."""
    program, *rest = words
    if program == 'python' and rest[0] in TOOLS:
        return parser_of(TOOLS[rest[0]]).parse_args(rest[1:])
    if program == 'rass-mm':
        return parser_of(rest[0]).parse_args(rest[1:])
    if program in ('tools/dist_train.sh', 'tools/dist_test.sh'):
        command = program.removeprefix('tools/dist_').removesuffix('.sh')
        given, processes = (1, rest[1]) if command == 'train' else (2, rest[2])
        assert processes.isdecimal(), words
        return parser_of(command).parse_args([*rest[:given], *rest[given + 1 :]])
    if program in SHARDED:
        assert rest[0].isdecimal(), words
        return parser_of(SHARDED[program]).parse_args(rest[1:])
    if program in ('tools/slurm_train.sh', 'tools/slurm_test.sh'):  # the first argument is the partition
        return parser_of(program.removeprefix('tools/slurm_').removesuffix('.sh')).parse_args(rest[1:])
    if program == 'sbatch' and rest[1] == 'tools/slurm_array.sh':
        return parser_of(rest[2]).parse_args(rest[3:])
    if words[:3] == ['python', '-m', 'experiments']:
        assert experiments_cli.main(rest[2:]) == 0
    elif program == 'make':
        targets = [word for word in rest if not word.startswith('-') and '=' not in word]
        assert targets and set(targets) <= make_targets(), words
    elif program == 'python':
        assert (ROOT / rest[0]).is_file(), words
    else:
        assert program in FOREIGN, words
    return None


def make_targets():
    return set(re.search(r'^\.PHONY: (.*)', (ROOT / 'Makefile').read_text(), re.M)[1].split())


def check_configs(arguments, shown, dumped):
    """Configs of a command exist, or the page shows them or writes them by training; overridden keys exist too."""
    files = [getattr(arguments, 'config', None), *getattr(arguments, 'against', [])]
    for file in (dumped.get(file, file) for file in files):
        if file is None or file in shown:
            continue
        config, overrides = config_of(file), getattr(arguments, 'cfg_options', None) or {}
        for key in overrides:
            *place, _ = key.split('.')
            if '.'.join([*place, 'type']) not in overrides:  # else the command adds the whole part
                reduce(lambda part, name: part[int(name) if name.isdecimal() else name], place, config)


@pytest.mark.parametrize(
    'words',
    [
        ['rass-mm', 'restore', 'photos', '--adapter', 'a'],
        ['rass-mm', 'train', '--resum'],
        ['python', 'tools/test.py', 'a', 'b', 'c'],
    ],
)
def test_a_wrong_command_would_be_found(words):
    with pytest.raises(SystemExit):
        parsed(words)


@pytest.mark.parametrize('words', [['rass-mn', 'train'], ['make', 'dems'], ['python', 'tools/fit.py']])
def test_an_unknown_program_would_be_found(words):
    with pytest.raises(AssertionError):
        parsed(words)


def test_an_unknown_config_would_be_found():
    with pytest.raises(ConfigError, match='No file .* no shipped config'):
        check_configs(parsed(['rass-mm', 'train', 'rass/rass_scene_tiny.py']), {}, {})


def test_a_wrong_override_would_be_found():
    arguments = parsed(['rass-mm', 'train', 'rass/rass_scenes_tiny.py', '--cfg-options', 'model.backbon.base=x'])
    with pytest.raises(KeyError):
        check_configs(arguments, {}, {})


@by_page
def test_python_blocks_compile_and_name_what_exists(page):
    for block in pages.blocks(page, 'python'):
        compile(block.text, f'{page}:{block.line}', 'exec')
        for module, name in pages.imported_names(block.text):
            assert hasattr(importlib.import_module(module), name), f'{page}:{block.line}: {module}.{name}'


@by_page
def test_configs_that_a_page_shows_load(page, tmp_path):
    for name, text in pages.named_files(page).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    for name in pages.named_files(page):
        assert 'model' in load_config(tmp_path / name)


@by_page
def test_configs_in_the_text_exist(page):
    for token in pages.inlines(page, 'code_inline'):
        folder, _, name = token.content.partition('/')
        if name.endswith('.py') and (ROOT / 'configs' / folder).is_dir():
            for pattern in pages.expanded(token.content):
                assert list((ROOT / 'configs').glob(pattern)), f'{page}: {pattern}'


@by_page
def test_names_in_the_text_exist(page):
    if page.name == 'CHANGELOG.md':
        return  # it names what is gone
    for token in pages.inlines(page, 'code_inline'):
        found = re.match(r'(rass_mm(?:_cli)?(?:\.\w+)+)(\(|$)', token.content)
        if found and not found[1].endswith('.py'):
            assert pkgutil.resolve_name(found[1]) is not None, f'{page}: {token.content}'


def test_readmes_of_configs_are_on_the_site():
    embedded = (ROOT / 'docs' / 'conf.py').read_text()
    assert [file for file in ROOT.glob('configs/*/README.md') if pages.name(file) not in embedded] == []


def executed(page, word):
    """The names that the one Python block with that word in it defines."""
    (text,) = (block.text for block in pages.blocks(ROOT / 'docs' / page, 'python') if word in block.text)
    space = {'__name__': page}
    exec(compile(text, page, 'exec'), space)
    return space


def test_the_prompt_of_the_page_is_one(tiny_base):
    executed('extending.md', 'class SentencePrompt')
    base = read_base(tiny_base)
    prompt = MODELS.build(dict(type='SentencePrompt', base=base, classes=['sky'], sentence='a photo of a street'))
    given = prompt(torch.zeros(2, 3, 32, 32))
    assert given.context.shape == (2, 77, base.context_width) and not prompt.state_dict()
    assert given.owners.shape == (2, 77) and (given.owners == NOBODY).all()


def test_the_command_of_the_page_counts(tmp_path, capsys):
    for name in ('a.png', 'b.JPG', 'notes.txt'):
        (tmp_path / name).touch()
    command = executed('extending.md', 'count-images')
    arguments = command['add_arguments'](CommandParser()).parse_args([str(tmp_path)])
    assert arguments.run(arguments) == 0
    assert capsys.readouterr().out == f'{tmp_path}: 2 images\n'


def test_the_data_set_of_the_page_reads(tmp_path):
    executed('extending.md', 'class ParkingDataset')
    for folder, name in (('img', 'a.jpg'), ('ann', 'a.png')):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / name), np.ones((8, 8), np.uint8))
    prefix = dict(img_path='img', seg_map_path='ann')
    data = DATASETS.build(dict(type='ParkingDataset', data_root=str(tmp_path), data_prefix=prefix, pipeline=[]))
    assert len(data) == 1 and data.metainfo['classes'] == ('asphalt', 'car', 'person')
    assert data[0]['seg_map_path'] == str(tmp_path / 'ann' / 'a.png') and not data[0]['reduce_zero_label']


@cache
def known_options():
    """Options of our commands, and those that the other programs of the project name in their source."""
    own = {option for command in COMMANDS for action in parser_of(command)._actions for option in action.option_strings}
    sources = [*ROOT.glob('tools/*.py'), *ROOT.glob('experiments/*.py')]
    return own | {option for file in sources for option in re.findall(r"'(--[a-z][a-z0-9-]*)'", file.read_text())}


@by_page
def test_options_in_the_text_exist(page):
    for token in pages.inlines(page, 'code_inline'):
        for option in re.findall(r'(?<!\S)--[a-z][a-z0-9-]*', token.content):
            assert option in known_options() | FOREIGN_OPTIONS, f'{page}: {token.content}'


ENTRY = Path(sys.executable).parent / 'rass-mm'
FEW = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2']
TINY = {
    ('rass-mm', 'make-scenes'): ['--train', '4', '--val', '2', '--workers', '1'],
    ('rass-mm', 'make-lq'): ['--workers', '1'],
    ('rass-mm', 'make-base'): ['--scenes', '4', '--vae-steps', '2', '--unet-steps', '2'],
    ('python', 'tools/train.py'): ['--cfg-options', *FEW, 'default_hooks.checkpoint.filename_tmpl=iter_170.pth'],
    ('python', 'tools/test.py'): ['--cfg-options'],
}
"""Options appended to the commands of a page, so that they run in seconds."""


@pytest.mark.slow
def test_the_commands_that_train_the_small_configs_run_as_written(tmp_path, monkeypatch):
    """Then the config in the work folder resumes the training and serves mmseg's API."""
    (block,) = (
        block for block in pages.blocks(ROOT / 'docs' / 'getting_started.md', 'bash') if 'make-base' in block.text
    )
    commands = pages.command_lines(block.text)
    assert [tuple(words[:2]) in TINY for words in commands] == [True] * 6
    programs = {'rass-mm': [ENTRY if ENTRY.exists() else ROOT / 'rass_mm' / '__main__.py'], 'python': []}
    for number, words in enumerate(commands):
        words += TINY[tuple(words[:2])]
        if '--cfg-options' in words:
            words.append(f'visualizer.name=command{number}')  # a process can have only one visualizer with this name
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    work = tmp_path / 'work_dirs' / 'rass_scenes_tiny'
    more = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'visualizer.name=resumed']
    commands.append(['python', 'tools/train.py', work / 'rass_scenes_tiny.py', '--resume', '--cfg-options', *more])
    done = tools(*([*programs[program], *rest] for program, *rest in commands), cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    assert 'resumed epoch: 0, iter: 2' in done.stdout + done.stderr
    adapter = load_config(work / 'rass_scenes_tiny.py').model.backbone.scr_adapter
    assert (tmp_path / adapter).is_file()
    checkpoint = load_local(work / 'iter_170.pth')
    assert checkpoint['meta']['iter'] == 3
    assert read_provenance(checkpoint['state_dict'][PROVENANCE])['merged_adapters']
    assert 0 <= json.loads((work / 'metrics.json').read_text())['metrics']['mIoU'] <= 100
    assert len(list((tmp_path / 'label_maps').glob('*.png'))) == len(list((tmp_path / 'pictures').rglob('*.png'))) == 2
    assert load_config(work / 'rass_scenes_tiny.py').load_from is None  # the test keeps the config of the training
    monkeypatch.chdir(tmp_path)  # the paths in the config are relative
    model = init_model(str(work / 'rass_scenes_tiny.py'), str(work / 'iter_170.pth'), device='cpu')
    assert model.provenance['merged_adapters']


@pytest.mark.parametrize('command', ['configs', 'doctor'])
def test_the_short_commands_of_the_pages_run(command):
    assert any(
        ['rass-mm', command] == words
        for page in pages.PAGES
        for block in pages.blocks(page, 'bash')
        for words in pages.command_lines(block.text)
    )
    done = python('-m', 'rass_mm_cli', command)
    assert done.returncode == 0, done.stderr
    assert {'configs': 'rass/rass_ade20k_lq.py', 'doctor': 'mmsegmentation'}[command] in done.stdout


def test_every_command_has_its_place():
    assert sorted(pages.headings(ROOT / 'docs' / 'commands.md', 3)) == sorted(COMMANDS)
    readme = (ROOT / 'README.md').read_text()
    assert [command for command in COMMANDS if f'`rass-mm {command}`' not in readme] == []


def test_readme_is_short():
    lines = (ROOT / 'README.md').read_text().splitlines()
    assert len(lines) <= 200


def test_floors_picture_is_what_the_contract_draws():
    module = floors()
    found = module.read_floors(ROOT / 'pyproject.toml')
    assert module.PICTURE.read_text() == module.drawn(found)
    page = (ROOT / 'docs' / 'architecture.md').read_text()
    assert [name for floor in found for name, _ in floor if f'`{name}`' not in page] == []


def test_floors_of_a_contract_are_read_and_drawn():
    module = floors()
    read = [module.parse_floor(layer) for layer in ('cli', 'rass_mm.a | b', '(c) : d')]
    assert read == [[('cli', True)], [('rass_mm.a', True), ('b', True)], [('c', False), ('d', False)]]
    picture = module.drawn(read)
    assert picture.count('class="box"') == 3 and picture.count('class="shared"') == 2 and '>a<' in picture
    assert picture != module.drawn(read[::-1])


def test_floors_need_the_contract(tmp_path):
    (tmp_path / 'pyproject.toml').write_text('[[tool.importlinter.contracts]]\nname = "floors"\ntype = "forbidden"\n')
    with pytest.raises(ValueError, match='named "floors"'):
        floors().read_floors(tmp_path / 'pyproject.toml')


def test_citation_names_paper_and_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert str(citation['version']) == __version__
    paper = citation['preferred-citation']
    assert paper['title'] in (ROOT / 'README.md').read_text() and paper['year'] == 2026
