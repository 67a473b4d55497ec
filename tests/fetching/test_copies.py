"""`rass-mm fetch --from`: files copied by hand, links, and paths that lead out of a folder."""

import json
import os
import subprocess

import pytest
from commands import SHARED
from fetch_server import BIG, CONTENTS, SMALL, entry_of, names, sha

from rass_mm.errors import DownloadError
from rass_mm.fetching.places import inside
from rass_mm_cli.catalog import ENTRIES, RemoteFile

WEIGHTS, CONFIG = CONTENTS


@pytest.fixture
def source(tmp_path):
    """A folder with the files of the entry, a file that is not in the catalog, and a record with hostile names."""
    folder = tmp_path / 'source'
    (folder / 'unet').mkdir(parents=True)
    for name, content in {**CONTENTS, 'evil.py': b'1', 'fetched.json': b'{"files": {"../evil": 1}}'}.items():
        (folder / name).write_bytes(content)
    return folder


def test_only_the_files_of_the_catalog_are_copied(source, catalog, run, tmp_path):
    catalog()
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert status == 0, err
    assert (
        names(tmp_path / 'to') == ['fetched.json', CONFIG, WEIGHTS] and (tmp_path / 'to' / WEIGHTS).read_bytes() == BIG
    )
    assert json.loads((tmp_path / 'to' / 'fetched.json').read_text())['source'] == f'copy of {source}'
    assert not os.path.samefile(source / WEIGHTS, tmp_path / 'to' / WEIGHTS)


def test_a_file_of_any_name_serves_an_entry_of_one_file(catalog, run, tmp_path):
    catalog(contents={'rass.pth': BIG}, known=False)
    (tmp_path / 'Download (1)').write_bytes(BIG)
    assert run('tiny', '--from', tmp_path / 'Download (1)', '--trust')[0] == 0
    assert (tmp_path / 'cache' / 'weights' / 'tiny' / 'rass.pth').read_bytes() == BIG


def test_a_file_does_not_serve_an_entry_of_several(source, catalog, run):
    catalog()
    status, _, err = run('tiny', '--from', source / WEIGHTS)
    assert status == 1 and 'tiny has 2 files. Pass their folder.' in err


def damage(source, kind, tmp_path):
    """Makes the weights in the source unusable; returns words of the message."""
    path = source / WEIGHTS
    path.unlink()
    if kind == 'link':
        (tmp_path / 'secret').write_bytes(BIG)
        path.symlink_to(tmp_path / 'secret')
    elif kind == 'dots':
        (tmp_path / 'secret').write_bytes(BIG)
        path.symlink_to('../../secret')
    elif kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'folder link':
        (source / CONFIG).unlink()
        path.parent.rmdir()
        (tmp_path / 'elsewhere').mkdir()
        (tmp_path / 'elsewhere' / 'weights.safetensors').write_bytes(BIG)
        path.parent.symlink_to(tmp_path / 'elsewhere')
    elif kind == 'content':
        path.write_bytes(bytes(len(BIG)))
    return {
        **dict.fromkeys(('link', 'dots', 'folder link'), 'a link that leads out of'),
        **{'pipe': 'is not a file', 'folder': 'is not a file', 'missing': 'does not exist', 'content': sha(BIG)},
    }[kind]


@pytest.mark.parametrize('kind', ['missing', 'link', 'dots', 'folder link', 'pipe', 'folder', 'content'])
def test_unusable_sources_are_refused(source, catalog, run, tmp_path, kind):
    catalog()
    words = damage(source, kind, tmp_path)
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert status == 1 and words in err
    assert not any('weights' in name for name in names(tmp_path / 'to'))


def test_a_large_file_without_a_hash_is_not_copied_to_its_end(source, catalog, run, tmp_path):
    catalog(known=False, most=1000)
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to', '--trust')
    assert status == 1 and 'more than 1,000 bytes' in err and not (tmp_path / 'to' / 'unet').exists()


@pytest.mark.parametrize('place', ['unet', '.fetch'])
def test_links_in_the_target_do_not_lead_out_of_it(source, catalog, run, tmp_path, place):
    catalog()
    outside = tmp_path / 'outside'
    outside.mkdir()
    mine = ['unet__config.json.partial', 'x.partial']
    for name in mine:
        (outside / name).touch()
    (tmp_path / 'to').mkdir()
    (tmp_path / 'to' / place).symlink_to(outside)
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert status == 1 and 'is a link that leads out of' in err and names(outside) == mine


def test_a_link_in_place_of_a_partial_file_is_not_followed(source, catalog, run, tmp_path):
    catalog()
    own = tmp_path / 'own'
    own.write_text('mine')
    (tmp_path / 'to' / '.fetch').mkdir(parents=True)
    for make in (os.symlink, os.link):
        partial = tmp_path / 'to' / '.fetch' / 'unet__weights.safetensors.partial'
        partial.unlink(missing_ok=True)
        make(own, partial)
        status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
        assert status == 1 and 'is a link or not a file' in err and own.read_text() == 'mine'


@pytest.mark.parametrize('name', ['../evil', 'a/../../evil', '/etc/evil', '', '.', 'a\\..\\evil', 'C:evil'])
def test_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(DownloadError, match='is not a path inside a folder'):
        inside(tmp_path, name)


def test_an_entry_with_such_a_name_writes_nothing(source, catalog, run, tmp_path):
    catalog(contents={'../evil.py': b'1'})
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'a' / 'to')
    assert status == 1 and 'is not a path inside a folder' in err and not (tmp_path / 'a').exists()


def test_a_file_of_the_user_is_not_overwritten(source, catalog, run, tmp_path):
    catalog()
    mine = tmp_path / 'to' / CONFIG
    mine.parent.mkdir(parents=True)
    mine.write_text('mine')
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert status == 1 and f'{mine} is not the expected file' in err and 'It was not changed.' in err
    assert mine.read_text() == 'mine' and names(tmp_path / 'to') == [CONFIG]


def test_what_belongs_to_others_in_a_shared_folder_stays(source, catalog, run, tmp_path):
    catalog()
    staging = tmp_path / 'to' / '.fetch'
    (staging / 'mine').mkdir(parents=True)
    others = ['empty.partial', 'mine/file', 'vae__weights.safetensors.partial', 'vae__weights.safetensors.partial.json']
    for name in others:
        (staging / name).write_text('' if 'empty' in name else 'other')
    for name in (WEIGHTS, CONFIG):  # of an earlier command for the same entry
        for end in ('.partial', '.partial.json'):
            (staging / f'{name.replace("/", "__")}{end}').write_text('own')
    assert run('tiny', '--from', source, '--to', tmp_path / 'to')[0] == 0
    assert names(staging) == others


def test_the_record_of_another_entry_is_not_replaced(source, catalog, run, tmp_path):
    catalog(name='other', contents={'other.pkl': BIG}, known=False)
    assert run('other', '--from', source / WEIGHTS, '--to', tmp_path / 'to', '--trust')[0] == 0
    before = (tmp_path / 'to' / 'fetched.json').read_text()
    catalog()
    status, _, err = run('tiny', '--from', source, '--to', tmp_path / 'to')
    assert status == 1 and "is the record of 'other'" in err and '--to' in err
    assert (tmp_path / 'to' / 'fetched.json').read_text() == before
    assert names(tmp_path / 'to') == ['fetched.json', 'other.pkl']


def test_a_fetch_that_has_stopped_keeps_its_folder(source, catalog, run, tmp_path):
    catalog()
    (source / CONFIG).unlink()
    assert run('tiny', '--from', source, '--to', tmp_path / 'to')[0] == 1
    assert names(tmp_path / 'to') == ['fetched.json', WEIGHTS]
    catalog(name='other', contents={WEIGHTS: b'other weights' * 100}, known=False)  # would trust the file on first use
    status, _, err = run('other', '--from', source, '--to', tmp_path / 'to', '--trust')
    assert status == 1 and "is the record of 'tiny'" in err and not (tmp_path / 'cache' / 'fetched').exists()


def test_a_target_that_is_a_link_to_a_folder_is_used(source, catalog, run, tmp_path):
    catalog()
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'to').symlink_to(tmp_path / 'disk')
    assert run('tiny', '--from', source, '--to', tmp_path / 'to')[0] == 0
    assert (tmp_path / 'disk' / CONFIG).read_bytes() == SMALL


def test_git_identifiers_are_those_of_git(source, catalog, run, tmp_path, monkeypatch):
    for digest, expected in (('0' * 40, 1), (git_identifier(SMALL), 0)):
        entry = entry_of()
        files = (RemoteFile(CONFIG, len(SMALL), git=digest),)
        monkeypatch.setitem(ENTRIES, 'tiny', type(entry)(**{**vars(entry), 'files': files}))
        assert run('tiny', '--from', source, '--to', tmp_path / 'to')[0] == expected


def git_identifier(content):
    """Asks git."""
    found = subprocess.run(['git', 'hash-object', '--stdin'], input=content, capture_output=True, check=True)
    return found.stdout.decode().strip()


def test_the_published_files_of_taesd_have_the_hashes_of_the_catalog(run, tmp_path):
    folder = SHARED / 'weights' / 'taesd'
    if not folder.is_dir():
        pytest.skip(f'{folder} is absent')
    status, out, err = run('taesd', '--from', folder)
    assert status == 0 and '--autoencoder taesd' in out, err
    assert names(tmp_path / 'cache' / 'weights' / 'taesd') == [
        *('fetched.json', 'taesd_decoder.safetensors', 'taesd_encoder.safetensors')
    ]
