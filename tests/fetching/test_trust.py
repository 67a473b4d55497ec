"""Trust on first use, consent, the list of entries, and the names under which other commands find the files."""

import io
import json
import re
import sys
from pathlib import Path

import pytest
from commands import ROOT, python
from fetch_server import BIG, CONTENTS, SMALL, sha

from rass_mm.diffusion.base import find_base
from rass_mm.errors import BaseFolderError
from rass_mm_cli import bases, doctor
from rass_mm_cli.catalog import ENTRIES, located

WEIGHTS, CONFIG = CONTENTS


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / 'source'
    (folder / 'unet').mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)
    return folder


class Terminal(io.StringIO):
    """Standard input with a user at a terminal."""

    def isatty(self):
        return True


def test_first_use_needs_consent_is_recorded_and_then_enforced(source, server, catalog, run, tmp_path):
    catalog(known=False)
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'a')
    assert status == 1 and 'Pass --trust.' in err and WEIGHTS in err and not (tmp_path / 'a').exists()

    assert run('tiny', '--from', source, '--to', tmp_path / 'a', '--trust')[0] == 0
    record = tmp_path / 'cache' / 'fetched' / 'tiny.json'
    assert json.loads(record.read_text()) == {WEIGHTS: sha(BIG), CONFIG: sha(SMALL)}
    stored = json.loads((tmp_path / 'a' / 'fetched.json').read_text())
    assert {file['checked'] for file in stored['files'].values()} == {'first use'}

    assert run('tiny', '--from', source, '--to', tmp_path / 'b')[0] == 0  # known now, so nothing is asked
    server.contents[CONFIG] = b'{"width": 9}\n'
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'c', '--trust')
    assert status == 1 and sha(SMALL) in err and f'delete {record}' in err and not (tmp_path / 'c' / CONFIG).exists()

    (tmp_path / 'a' / CONFIG).write_text('changed')
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'a')
    assert status == 1 and f'{tmp_path / "a" / CONFIG} is not the expected file' in err
    record.unlink()
    assert run('tiny', '--mirror', server.address, '--to', tmp_path / 'd', '--trust')[0] == 0


POINTER = b'version https://git-lfs.github.com/spec/v1\noid sha256:' + b'0' * 64 + b'\nsize 300000\n'
PAGE = b'<title>Sign in</title>' + bytes(100_000)
ANSWERS = {
    'empty': (b'', 'is empty'),
    'pointer': (POINTER, 'is a pointer of Git LFS'),
    'page': (b'\xef\xbb\xbf\n<!DOCTYPE html>' + PAGE, 'is a page'),
    'page without a type': (b'<HTML>' + PAGE, 'is a page'),
    'XML': (b'<?xml version="1.0"?><Error/>' + PAGE, 'is a page'),
    'message': (b'{"error": "quota exceeded"}', 'has 27 bytes, too few for weights'),
}


@pytest.mark.parametrize('kind', ANSWERS)
def test_an_answer_in_place_of_the_file_is_not_trusted(source, server, catalog, run, tmp_path, kind):
    content, words = ANSWERS[kind]
    catalog(known=False)
    server.contents[WEIGHTS] = content
    status, _, err = run('tiny', '--mirror', server.address, '--to', tmp_path / 'to', '--trust')
    assert status == 1 and words in err and 'It was removed.' in err and not (tmp_path / 'to' / 'unet').exists()
    (source / WEIGHTS).write_bytes(content)  # likewise a copy, and a file that is already in the target
    assert words in run('tiny', '--from', source, '--to', tmp_path / 'to', '--trust')[2]
    status, _, err = run('tiny', '--mirror', server.address, '--to', source, '--trust')
    assert status == 1 and words in err and 'It was not changed.' in err
    assert (source / WEIGHTS).read_bytes() == content and not (tmp_path / 'cache' / 'fetched').exists()


def test_the_record_in_the_folder_is_enforced_on_another_machine(source, catalog, run, tmp_path, monkeypatch):
    catalog(known=False)
    assert run('tiny', '--from', source, '--to', tmp_path / 'a', '--trust')[0] == 0
    monkeypatch.setenv('RASS_MM_CACHE', str(tmp_path / 'other'))
    (tmp_path / 'a' / CONFIG).write_text('changed')
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'a', '--trust')
    assert status == 1 and sha(SMALL) in err


@pytest.mark.parametrize('text', ['', '[]', '{"a": 1}', '{"unet/config.json": "../x"}'])
def test_a_damaged_record_is_an_error(source, catalog, run, tmp_path, text):
    catalog(known=False)
    record = tmp_path / 'cache' / 'fetched' / 'tiny.json'
    record.parent.mkdir(parents=True)
    record.write_text(text)
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to', '--trust')
    assert status == 1 and str(record) in err and 'Delete it' in err


def test_a_hostile_record_in_the_target_has_no_effect_on_other_files(source, catalog, run, tmp_path):
    catalog(known=False)
    (tmp_path / 'to').mkdir()
    files = {'../evil': {'size': 1, 'sha256': 'a' * 64, 'checked': 'first use'}}
    (tmp_path / 'to' / 'fetched.json').write_text(json.dumps({'entry': 'tiny', 'files': files}))
    assert run('tiny', '--from', source, '--to', tmp_path / 'to', '--trust')[0] == 0
    assert set(json.loads((tmp_path / 'to' / 'fetched.json').read_text())['files']) == set(CONTENTS)
    assert not (tmp_path / 'evil').exists()


def test_a_licence_that_forbids_something_is_shown_and_accepted(source, catalog, run, tmp_path):
    catalog(forbids='No flying.')
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert status == 1 and 'No flying.' in err and 'Pass --accept-licence.' in err and not (tmp_path / 'to').exists()
    assert run('tiny', '--from', source, '--to', tmp_path / 'to', '--accept-licence')[0] == 0
    assert run('tiny', '--from', source, '--to', tmp_path / 'to')[0] == 0  # nothing is fetched


@pytest.mark.parametrize(('answer', 'status'), [('y\n', 0), ('n\n', 1), ('\n', 1), ('', 1)])
def test_a_user_at_a_terminal_is_asked_once(source, catalog, run, tmp_path, monkeypatch, answer, status):
    catalog(forbids='No flying.', known=False)
    monkeypatch.setattr(sys, 'stdin', Terminal(answer))
    found, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert found == status and err.count('[y/N]') == 1
    assert 'Do you accept the licence and trust these files on first use? [y/N]' in err
    assert (tmp_path / 'to').exists() == (status == 0)


def test_the_list_names_state_size_licence_and_folder(run, tmp_path):
    status, out, _ = run()
    assert status == 0
    for entry in ENTRIES.values():
        assert entry.title in out and entry.licence.name in out and f'{entry.folder}\n' in out
    assert str(tmp_path / 'cache' / 'bases' / 'stable-diffusion-2-1-base') in out and 'not stored, 5.16 GB' in out
    found = json.loads(run('--json')[1])
    assert [entry['name'] for entry in found] == list(ENTRIES) and not any(entry['stored'] for entry in found)


def test_options_without_a_name_are_an_error(run):
    status, _, err = run('--accept-licence')
    assert status == 1 and 'NAME is missing' in err


def test_a_misspelled_name_is_corrected(run, capsys):
    with pytest.raises(SystemExit):
        run('sd21-bas')
    assert 'Did you mean sd21-base?' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['rass', 'scr', 'reallq'])
def test_entries_without_an_address_name_the_page_and_the_way_by_hand(run, name):
    status, _, err = run(name, '--trust', '--accept-licence')
    assert status == 1 and ENTRIES[name].page in err and f'rass-mm fetch {name} --from FILE' in err


def test_every_entry_of_the_catalog_is_complete():
    assert list(ENTRIES) == ['sd21-base', 'sd-turbo', 'sd15', 'taesd', 'osediff', 'rass', 'scr', 'reallq']
    for entry in ENTRIES.values():
        assert entry.evidence and entry.licence.name and (entry.repository or entry.page)
        assert bool(entry.repository) == bool(re.fullmatch('[0-9a-f]{40}', entry.revision or ''))
        assert entry.address is None or entry.address.startswith('https://')
        for file in entry.files:
            assert all(re.fullmatch('[0-9a-f]{64}', digest) for digest in file.sha256)
            assert file.git is None or re.fullmatch('[0-9a-f]{40}', file.git)
    assert ENTRIES['sd21-base'].unknown == ENTRIES['sd15'].unknown == ENTRIES['taesd'].unknown == []
    assert [name for name in ENTRIES['sd-turbo'].unknown if not name.endswith('.safetensors')] == []


def test_a_fetched_base_is_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BaseFolderError, match='rass-mm fetch sd21-base'):
        find_base('sd21-base')
    assert 'rass-mm fetch sd21-base' in '\n'.join(doctor.base_lines())
    for folder in (
        ENTRIES['sd21-base'].folder,
        tmp_path / 'bases' / 'stable-diffusion-2-1-base',
        tmp_path / 'sd21-base',
    ):
        (folder / 'unet').mkdir(parents=True)
        (folder / 'unet' / 'config.json').write_text('{}')
        assert find_base('sd21-base').resolve() == folder  # a nearer one precedes
    assert find_base('bases/stable-diffusion-2-1-base').resolve() == tmp_path / 'bases' / 'stable-diffusion-2-1-base'
    assert bases.find_source(bases.SD21_BASE) is not None


def test_fetched_weights_are_found_by_name(catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one, two = catalog(name='one', contents={'one.pkl': b'1'}), catalog(name='two', contents={'a': b'1', 'b': b'2'})
    assert located('one') == Path('one') and located('two') == Path('two')
    for entry in (one, two):
        entry.folder.mkdir(parents=True)
        for file in entry.files:
            (entry.folder / file.name).write_bytes(b'1')
    assert located('one') == one.folder / 'one.pkl' and located('two') == two.folder
    (tmp_path / 'one').write_text('a file of the user')
    assert located('one') == Path('one')


def test_the_list_needs_no_library_of_the_models(tmp_path):
    done = python('-X', 'importtime', '-m', 'rass_mm_cli', 'fetch', cwd=tmp_path, env={'PYTHONPATH': str(ROOT)})
    imported = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and 'rass_mm.fetching.web' in imported
    assert not imported & {'torch', 'numpy', 'mmengine', 'mmcv', 'mmseg', 'diffusers', 'huggingface_hub'}
