"""Files of others are refused by what they are, whatever their name is."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch

from rass_mm_cli.main import main


def refused(path, capsys):
    """Inspects a file that must be refused, and returns the error."""
    capsys.readouterr()
    assert main(['inspect', str(path)]) == 1
    found = capsys.readouterr()
    assert found.out == '' and 'Traceback' not in found.err and str(path) in found.err
    return found.err


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        archive.addfile(tarfile.TarInfo('a.png'))
    return buffer.getvalue()


def saved(save, *arguments, **options):
    buffer = io.BytesIO()
    save(*((buffer, *arguments) if save is np.save else (*arguments, buffer)), **options)
    return buffer.getvalue()


FILES = {
    'old checkpoint.pth': (
        lambda: saved(torch.save, {'a': torch.zeros(1)}, _use_new_zipfile_serialization=False),
        'a checkpoint in the format of torch.save before PyTorch 1.6',
    ),
    'photos.tar': (tar, 'a tar archive'),
    'array.npy': (lambda: saved(np.save, np.zeros(3)), 'a NumPy array'),
    'picture.bmp': (lambda: b'BM\x36\0\0\0', 'a BMP image'),
    'BMW.txt': (lambda: b'BMW is a make of cars.\n', 'a text file'),
    'riff.txt': (lambda: b'RIFF is a format.\n', 'a text file'),
    'pickle.safetensors': (lambda: b'\x80\x04N.', 'a pickle that is not in the format of torch.save'),
    'pointer.safetensors': (lambda: b'version https://git-lfs.github.com/spec/v1\n', 'a Git LFS pointer'),
    'page.safetensors': (lambda: b'<!doctype html>', 'a web page'),
    'conversion.json': (
        lambda: json.dumps({'request': 1, 'kind': 2, 'used': 3, 'left_out': 4}).encode(),
        'a JSON file of another kind',
    ),
    'runs.jsonl': (lambda: b'{"seed": 1}\n{"seed": 2}\n', 'a file of JSON lines of another kind'),
    'list.jsonl': (lambda: b'[1]\n[2]\n', 'a file of JSON lines of another kind'),
}


@pytest.mark.parametrize('name', FILES)
def test_files_of_others_are_named(tmp_path, capsys, name):
    content, what = FILES[name]
    (tmp_path / name).write_bytes(content())
    error = refused(tmp_path / name, capsys)
    assert f' is {what}' in error and 'processed again' not in error and 'delete' not in error


def test_a_short_safetensors_file_is_damaged(tmp_path, capsys):
    (tmp_path / 'a.safetensors').write_bytes(b'{}')
    assert 'is damaged: its header has 0 bytes, but from 1 to 16,777,216' in refused(tmp_path / 'a.safetensors', capsys)


def test_a_damaged_manifest_is_not_another_file(tmp_path, capsys):
    (tmp_path / 'manifest.jsonl').write_text('{"seed": 1, "finger')
    assert 'is damaged: its first line is not the header of a manifest' in refused(tmp_path / 'manifest.jsonl', capsys)


def test_a_file_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    (tmp_path / 'a.pth').write_bytes(b'x')

    class Broken(io.BytesIO):
        def read(self, *_):
            raise OSError(5, 'Input/output error')

    monkeypatch.setattr('pathlib.Path.open', lambda *_, **__: Broken())
    assert 'cannot be used: Input/output error' in refused(tmp_path / 'a.pth', capsys)


def test_names_cannot_control_the_terminal(tmp_path, capsys):
    record = {'entry': '\x1b[31mX\x1b]0;title\x07', 'files': {}, 'licence': 'MIT\u202e'}
    (tmp_path / 'fetched.json').write_text(json.dumps(record))
    assert main(['inspect', str(tmp_path / 'fetched.json')]) == 0
    shown = capsys.readouterr().out
    assert r'\x1b[31mX\x1b]0;title\x07' in shown and r'MIT\u202e' in shown and '\x1b' not in shown
