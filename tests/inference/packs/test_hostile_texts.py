"""Texts of a pack reach terminals, commands to copy and model cards. Damaged packs are named by what is wrong."""

import json
import shutil

import numpy as np
import pytest
from packed_models import copied, manifest_of, sealed, write_manifest

import rass_mm
from rass_mm.errors import CheckpointError, PackError, RassError
from rass_mm.files.packs.reading import open_pack
from rass_mm.inference.results import Segmentation
from rass_mm_cli.main import main

ESCAPE = '\x1b]0;title\x07'


@pytest.fixture
def pack(make, tmp_path):
    return copied(make('plain'), tmp_path)


def failed(capsys, *command):
    """Runs a command that must fail, and returns its error."""
    capsys.readouterr()
    assert main([*map(str, command)]) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize('source', ['sd21-base; touch canary #', '/etc', '../x', 'x`<script>', 'a\nb', '~', ''])
def test_a_source_that_is_no_name_for_fetch_is_refused(make, tmp_path, source):
    """It would be part of a command in the message of a missing base and in the model card."""
    pack = copied(make('rass'), tmp_path)
    content = manifest_of(pack)
    content['base']['source'] = source
    write_manifest(pack, content)
    with pytest.raises(PackError, match=r'pack\.json: base\.source is'):
        open_pack(pack)


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content.update(name=f'street{ESCAPE}'),
        lambda content: content.update(licence='MIT\n# Heading'),
        lambda content: content['classes'].__setitem__(0, 'sky\u202e'),
        lambda content: content['versions'].update(torch='\x1b[2J'),
        lambda content: content['training'].update(data=['a\tb']),
    ],
)
def test_control_characters_are_refused_and_not_printed(pack, capsys, change):
    content = manifest_of(pack)
    change(content)
    write_manifest(pack, content)
    error = failed(capsys, 'inspect', pack)
    assert 'pack.json' in error and 'one line of text without control characters' in error
    assert error.strip().isprintable()


def test_names_in_other_scripts_are_kept(pack):
    """Control for the tests above."""
    content = manifest_of(pack)
    content['name'] = 'улица 通り 🚗 \u200fשלום'
    write_manifest(pack, content)
    assert open_pack(pack).manifest['name'] == content['name']


@pytest.mark.parametrize('licence', ['', ' ', 'a\n# b', f'MIT{ESCAPE}', 'x' * 1001])
def test_a_licence_is_one_line(models, tmp_path, capsys, licence):
    error = failed(capsys, 'pack', models.plain, tmp_path / 'out', '--licence', licence)
    assert 'The licence' in error and '--licence "CC BY-NC 4.0"' in error and not (tmp_path / 'out').exists()


@pytest.mark.parametrize('count', [11, 13])
def test_another_number_of_classes_than_the_model_has_is_an_error(pack, count):
    content = manifest_of(pack)
    for name in ('classes', 'palette'):
        content[name] = [*content[name], content[name][0]][:count]
    write_manifest(pack, content)
    with pytest.raises(PackError, match=rf'pack\.json names {count} classes, but the model predicts 12\.'):
        rass_mm.load_segmentor(pack, device='cpu')


def test_classes_of_the_same_name_share_one_entry():
    labels = np.array([[0, 1], [1, 2]])
    found = Segmentation(labels, ['road', 'car', 'road'], [(0, 0, 0)] * 3, np.zeros((2, 2, 3), np.uint8))
    assert found.shares == {'road': 0.5, 'car': 0.5}


def test_repeated_keys_are_refused(pack):
    """Other readers of JSON and YAML take the first one, and so may show another pack than the one that is used."""
    text = (pack / 'pack.json').read_text()
    (pack / 'pack.json').write_text(text.replace('"kind":', '"kind": "restorer", "kind":', 1))
    with pytest.raises(PackError, match="the key 'kind' is given twice"):
        open_pack(pack)
    (pack / 'pack.json').write_text(text)
    (pack / 'config.yaml').write_text(f'{(pack / "config.yaml").read_text()}\nmodel: {{type: RASS}}\n')
    with pytest.raises(PackError, match="the key 'model' is given twice"):
        rass_mm.load_segmentor(sealed(pack), device='cpu')


def test_a_zip_file_of_a_pack_says_to_unpack_it(make, tmp_path, capsys):
    segmentor = shutil.make_archive(tmp_path / 'segmentor', 'zip', make('plain').parent)
    restorer = shutil.make_archive(tmp_path / 'restorer', 'zip', make('restorer'))
    with pytest.raises(CheckpointError, match='is a zip file with a model pack. Unpack it, and pass the folder.'):
        rass_mm.load_segmentor(segmentor, device='cpu')
    assert 'Unpack it, and pass the folder.' in failed(capsys, 'inspect', segmentor)
    with pytest.raises(RassError, match=r'restorer\.zip is a zip file with a model pack\. Unpack it'):
        rass_mm.load_restorer(restorer, device='cpu')


@pytest.mark.parametrize('kind', ['missing', 'folder', 'checkpoint'])
def test_what_is_no_adapter_is_named_before_the_base_is_asked_for(models, tmp_path, capsys, kind):
    path = {'missing': tmp_path / 'none.safetensors', 'folder': tmp_path, 'checkpoint': models.plain}[kind]
    for command in (('restore', tmp_path, tmp_path / 'out'), ('attention', tmp_path / 'a.png', '--classes', 'sky')):
        error = failed(capsys, *command, '--adapter', path)
        assert str(path) in error and 'Set --base' not in error
    with pytest.raises(RassError, match=str(path)):
        rass_mm.load_restorer(path, device='cpu')


@pytest.mark.parametrize(('name', 'kind'), [('plain', 'segmentor'), ('restorer', 'restorer')])
def test_a_pack_without_its_manifest_is_named(make, tmp_path, name, kind):
    pack = copied(make(name), tmp_path)
    (pack / 'pack.json').unlink()
    with pytest.raises(RassError, match=r'If it is a model pack, its pack\.json is missing: copy the folder again'):
        getattr(rass_mm, f'load_{kind}')(pack, device='cpu')


def test_files_of_a_pack_lead_to_its_folder(make, capsys):
    pack = make('plain')
    for name in ('model.safetensors', 'config.yaml', 'README.md'):
        assert f'the folder has a pack.json. Pass the folder: rass-mm inspect {pack}' in failed(
            capsys, 'inspect', pack / name
        )


def test_the_texts_of_a_pack_reach_the_terminal_as_json_too(make, capsys):
    """Control: a pack that was not changed is printed."""
    capsys.readouterr()
    assert main(['inspect', str(make('plain')), '--json']) == 0
    assert json.loads(capsys.readouterr().out)['name'] == 'plain'


def test_other_users_can_read_all_files(make):
    pack = make('plain')
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in pack.iterdir()} == dict.fromkeys(
        ('README.md', 'config.yaml', 'model.safetensors', 'pack.json'), '0o644'
    )
