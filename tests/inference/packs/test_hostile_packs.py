"""Packs that were changed, or made to run code or to read elsewhere, are refused before anything is used."""

import os
import struct

import pytest
import torch
import yaml
from packed_models import copied, manifest_of, sealed, write_manifest

import rass_mm
from rass_mm.errors import CheckpointError, PackError, RassError
from rass_mm.files.packs.reading import open_pack
from rass_mm_cli.main import main

CANARY = 'canary'
CODE = f"open({CANARY!r}, 'w').close()\n"


@pytest.fixture(autouse=True)
def no_canary(tmp_path, monkeypatch):
    """Runs the test in a folder with modules that write a canary when they are imported, and fails if one is there."""
    monkeypatch.chdir(tmp_path)
    for name in ('hostile.py', 'base.py'):
        (tmp_path / name).write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    assert not list(tmp_path.rglob(CANARY))


@pytest.fixture
def pack(make, tmp_path):
    return copied(make('plain'), tmp_path)


def refused(folder, *words, kind='segmentor'):
    with pytest.raises(RassError) as raised:
        getattr(rass_mm, f'load_{kind}')(folder, device='cpu')
    for word in words:
        assert word in str(raised.value), str(raised.value)
    return raised.value


@pytest.mark.parametrize(
    'name',
    [
        *('../hostile.json', '/etc/passwd.txt', 'a/../../x.json', '..\\x.json', 'C:/x.json', './x.json', 'a//b.json'),
        *('base/../../x.json', '.hidden.json', 'code.py', 'model.pkl', 'model.bin', 'x.json\n', 'a/b/c/d/e/f.json', ''),
    ],
)
def test_names_that_lead_elsewhere_or_to_code_are_refused(pack, name):
    content = manifest_of(pack)
    content['files'][name] = {'bytes': 1, 'sha256': '0' * 64}
    write_manifest(pack, content)
    assert isinstance(refused(pack, 'pack.json'), PackError)


@pytest.mark.parametrize('name', ['model.safetensors', 'config.yaml', 'README.md', 'pack.json'])
def test_symbolic_links_are_refused(pack, tmp_path, name):
    (pack / name).rename(tmp_path / 'target')
    (pack / name).symlink_to(tmp_path / 'target')
    refused(pack, name, 'symbolic link')


def test_linked_folder_is_refused(make, tmp_path):
    pack = copied(make('rass', '--with-base'), tmp_path)
    (pack / 'base').rename(tmp_path / 'real')
    (pack / 'base').symlink_to(tmp_path / 'real')
    refused(pack, str(pack / 'base'), 'symbolic link')


@pytest.mark.parametrize('name', ['model.safetensors', 'config.yaml'])
def test_changed_missing_and_special_files_are_named(make, tmp_path, name):
    for number, change in enumerate((_flip, _cut, lambda file: file.unlink(), _pipe)):
        pack = copied(make('plain'), tmp_path / str(number))
        change(pack / name)
        refused(pack, name)


def _flip(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def _cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def _pipe(file):
    file.unlink()
    os.mkfifo(file)


def test_wrong_hash_in_the_manifest_is_refused(pack):
    content = manifest_of(pack)
    content['files']['model.safetensors']['sha256'] = 'f' * 64
    write_manifest(pack, content)
    refused(pack, 'model.safetensors was changed or damaged', 'Copy the folder again')


def test_edited_card_is_a_warning(pack, caplog):
    (pack / 'README.md').write_text('mine')
    open_pack(pack, 'segmentor')
    assert 'README.md was changed' in caplog.text


@pytest.mark.parametrize('folder', ['base/unet', 'adapters'])
def test_added_files_are_refused(make, tmp_path, folder):
    pack = copied(make('rass', '--with-base'), tmp_path)
    (pack / folder / 'diffusion_pytorch_model-00001-of-00001.safetensors').write_bytes(b'x')
    refused(pack, 'is not listed in pack.json')


@pytest.mark.parametrize('length', [2**62, 2**26, 0])
def test_huge_header_is_refused(pack, length):
    file = pack / 'model.safetensors'
    file.write_bytes(struct.pack('<Q', length) + file.read_bytes()[8:])
    if length == 2**26:
        with file.open('r+b') as opened:
            opened.truncate(2**27)
    refused(sealed(pack), 'model.safetensors', 'header')


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content['model'].update(type='os.system', command=f'touch {CANARY}'),
        lambda content: content['model']['backbone'].update(type='builtins.exec'),
        lambda content: content['test_pipeline'].append({'type': 'hostile.Step'}),
        lambda content: content.update(custom_imports={'imports': ['hostile'], 'allow_failed_imports': True}),
        lambda content: content.update(_base_='base.py'),
        lambda content: content.update(_base_='../../base.py'),
        lambda content: content.update(load_from='model.pth'),
        lambda content: content['model'].update(pretrained='http://localhost/x.pth'),
        lambda content: content['model']['backbone'].update(init_cfg={'type': 'Pretrained', 'checkpoint': 'x.pth'}),
        lambda content: content['model'].update(data_preprocessor={'type': 'mmagic.VPD', 'x': '/etc/passwd'}),
        lambda content: content['model']['backbone'].update(frozen='../../../etc/passwd'),
        lambda content: content['model'].update(adapter='hostile.safetensors'),
        lambda content: content.update(hook={'type': 'EMAHook'}),
    ],
)
def test_code_in_the_config_is_refused(pack, change):
    file = pack / 'config.yaml'
    content = yaml.load(file.read_text().replace('!!python/tuple', ''), yaml.SafeLoader)
    change(content)
    file.write_text(yaml.safe_dump(content))
    assert isinstance(refused(sealed(pack), 'config.yaml'), PackError)


@pytest.mark.parametrize('tag', ['apply:os.system', 'object:hostile.Thing', 'name:os.system', 'module:hostile'])
def test_yaml_tags_are_refused(pack, tag):
    file = pack / 'config.yaml'
    file.write_text(
        f'{file.read_text()}\ndefault_scope: !!python/{tag} [touch {CANARY}]\n'.replace('mmseg\n', '~\n', 1)
    )
    refused(sealed(pack), 'config.yaml', 'tag')


def test_config_that_is_written_again_is_accepted(pack):
    """Control: without a change, the test above would fail."""
    file = pack / 'config.yaml'
    file.write_text(yaml.safe_dump(yaml.load(file.read_text().replace('!!python/tuple', ''), yaml.SafeLoader)))
    assert rass_mm.load_segmentor(sealed(pack), device='cpu').classes == manifest_of(pack)['classes']


@pytest.mark.parametrize(
    'steps', ['PackSegInputs', ['PackSegInputs'], [{'scale': 1}], {'type': 'PackSegInputs'}, 7, [None]]
)
def test_pipeline_that_is_no_list_of_steps_is_refused(pack, steps):
    file = pack / 'config.yaml'
    content = yaml.load(file.read_text().replace('!!python/tuple', ''), yaml.SafeLoader)
    file.write_text(yaml.safe_dump({**content, 'test_pipeline': steps}))
    refused(sealed(pack), 'config.yaml', 'list of steps')


def test_pickle_in_the_place_of_weights_is_refused(pack):
    torch.save({'state_dict': {}}, pack / 'model.safetensors')
    assert isinstance(refused(sealed(pack), 'model.safetensors'), CheckpointError)


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content.update(format=2),
        lambda content: content.update(format=True),
        lambda content: content.update(kind='os.system'),
        lambda content: content['files'].pop('model.safetensors'),
        lambda content: content['files'].update({'pack.json': {'bytes': 1, 'sha256': '0' * 64}}),
        lambda content: content['files'].update({'CONFIG.yaml': {'bytes': 1, 'sha256': '0' * 64}}),
        lambda content: content.update(files={f'{n}.json': {'bytes': 1, 'sha256': '0' * 64} for n in range(1000)}),
        lambda content: content['files']['config.yaml'].update(bytes=-1),
        lambda content: content.update(adapters={'model.x': '../x.safetensors'}),
        lambda content: content['classes'].append('one more'),
        lambda content: content.pop('terms'),
    ],
)
def test_manifest_is_checked(pack, change):
    content = manifest_of(pack)
    change(content)
    write_manifest(pack, content)
    assert isinstance(refused(pack, 'pack.json'), PackError)


@pytest.mark.parametrize('text', ['', '[]', '{', '[' * 100_000, ' ' * (5 * 2**20), '\xff'])
def test_damaged_manifest_is_named(pack, text):
    (pack / 'pack.json').write_bytes(text.encode('latin-1'))
    refused(pack, 'pack.json')


def test_base_in_the_pack_is_that_of_the_weights(make, other_base, tmp_path):
    pack = copied(make('rass', '--with-base'), tmp_path)
    for part in ('unet', 'vae', 'text_encoder'):
        name = f'{part}/{"model" if part == "text_encoder" else "diffusion_pytorch_model"}.safetensors'
        (pack / 'base' / name).write_bytes((other_base / name).read_bytes())
    refused(sealed(pack), 'another base')


def test_changed_adapter_is_refused(make, tmp_path):
    pack = copied(make('restorer', '--with-base'), tmp_path)
    _flip(pack / 'adapter.safetensors')
    refused(pack, 'adapter.safetensors', kind='restorer')
    refused(sealed(pack), 'does not match the hash in its header', kind='restorer')


def test_commands_refuse_with_one_sentence(pack, capsys):
    _flip(pack / 'model.safetensors')
    assert main(['segment', str(pack), 'out', '--checkpoint', str(pack)]) == 1
    error = capsys.readouterr().err
    assert 'model.safetensors was changed or damaged' in error and 'Traceback' not in error
