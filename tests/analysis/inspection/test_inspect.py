"""`rass-mm inspect` on each format, and on other files."""

import gzip
import json
import os
import pickle
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, python
from PIL import Image
from safetensors.torch import load_file, save_file

from rass_mm.analysis.inspection.facts import FIELDS, facts
from rass_mm.analysis.inspection.table import shown
from rass_mm.diffusion.base import SMALL_BASE, read_base
from rass_mm.engine.trained_state import pack_provenance
from rass_mm.files.hashing import content_hash
from rass_mm_cli.licences import NOT_STATED
from rass_mm_cli.main import main

SENTENCE = 'rass-mm inspect reads only checkpoints, adapters, bases, packs, exported models, manifests and records'


def test_checkpoint_with_a_base(files, inspected):
    found = inspected(files.rass)
    assert tuple(found) == FIELDS and found['kind'] == 'checkpoint of a segmentor' and found['model'] == 'RASS'
    assert found['rank'] == 8 and found['classes'] == files.classes and found['recipe_version'] == 2
    assert found['base'] == read_base(files.base).identity and found['identity'] == content_hash(files.rass)
    assert found['versions']['torch'] == torch.__version__.partition('+')[0] and found['licence'] == NOT_STATED


def test_checkpoint_without_a_base_names_its_data(files, inspected):
    found = inspected(files.camvid)
    assert found['model'] == 'EncoderDecoder' and found['base'] is None and found['training_data'] == ['CamVid']
    assert [(term['name'], term['licence']) for term in found['terms']] == [('CamVid', 'CC BY-NC 4.0')]


def test_recorded_terms_precede_those_of_the_config(files, inspected, tmp_path):
    content = torch.load(files.camvid, weights_only=True)
    term = {'kind': 'base', 'name': 'sd', 'licence': 'CreativeML Open RAIL++-M', 'forbids': 'A.', 'address': None}
    content['meta'] |= {'terms': [term], 'iter': 7, 'versions': {'rass_mm': '9'}}
    torch.save(content, tmp_path / 'x.pth')
    found = inspected(tmp_path / 'x.pth')
    assert found['terms'] == [term] and found['details']['updates'] == 7 and found['versions'] == {'rass_mm': '9'}


def test_adapter(files, inspected):
    found = inspected(files.adapter)
    assert found['kind'] == 'adapter of a restorer' and found['classes'] == ['sky', 'car', 'road']
    assert found['base'] == read_base(files.base).identity and found['rank'] == 4
    assert found['details']['form'] == 'residual' and found['terms'] == []


def test_converted_checkpoint(files, inspected, tmp_path):
    record = {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': [], 'classes': ['x', 'y'], 'versions': {}}
    save_file({'_extra_state': pack_provenance(record), 'w': torch.ones(2)}, tmp_path / 'rass.safetensors')
    found = inspected(tmp_path / 'rass.safetensors')
    assert found['kind'] == 'converted checkpoint of a segmentor' and found['classes'] == ['x', 'y']
    assert found['base'] == record['base'] and found['details']['tensors'] == 2


def test_bases(files, inspected):
    found = inspected(files.base)
    assert found['kind'] == 'base' and found['base'] == read_base(files.base).identity
    assert found['licence'] == NOT_STATED
    assert inspected(SMALL_BASE)['licence'] == 'Apache-2.0'


def test_packs(files, inspected):
    found = inspected(files.folder / 'pack')
    assert found['kind'] == 'pack of a segmentor' and found['licence'] == 'MIT' and found['rank'] == 8
    assert found['classes'] == files.classes and found['base']['included'] is False
    assert inspected(files.folder / 'pack' / 'pack.json') == found
    assert inspected(files.folder / 'restorer')['kind'] == 'pack of a restorer'


def test_exported_model(files, inspected):
    pytest.importorskip('onnx')
    out = files.folder / 'exported'
    command = ['export', files.camvid, out, '--format', 'onnx', '--window', '64']
    assert main([*map(str, command)]) == 0
    found = inspected(out)
    assert found['kind'] == 'exported segmentor' and found['model'] == 'EncoderDecoder' and len(found['classes']) == 11
    assert [term['licence'] for term in found['terms']] == ['CC BY-NC 4.0'] and found['details']['format'] == 'onnx'


def test_manifests(files, inspected):
    found = inspected(files.folder / 'segmented')
    assert found['kind'] == 'manifest of an output folder' and found['details']['images'] == 2
    assert found['identity'] == content_hash(files.plain)
    found = inspected(files.folder / 'lq' / 'manifest.jsonl')
    assert found['kind'] == 'manifest of a degraded copy' and found['recipe_version'] == 2
    assert inspected(files.folder / 'segmented' / 'shares.json')['classes'] == files.classes


@pytest.mark.parametrize(
    ('file', 'kind'),
    [
        ('docs/benchmark/segmentation.json', 'benchmark'),
        ('docs/robustness/camvid/RASS.json', 'robustness curve'),
        ('rass_mm/demo/base/weights/scenes/training.json', 'record of the training of a base'),
    ],
)
def test_records_of_this_repository(file, kind, inspected):
    assert inspected(ROOT / file)['kind'] == kind


def test_other_records(tmp_path, inspected):
    test = {
        **{'kind': 'test', 'config': 'c.py', 'protocol': 'p', 'command': 'rass-mm test', 'metrics': {'mIoU': 1.5}},
        **{
            'data': None,
            'versions': {'torch': '2'},
            'images': 3,
            'checkpoint_hash': 'ab',
            'recipe_version': {'tested': 1},
        },
    }
    fetched = {'entry': 'sd21-base', 'files': {}, 'licence': 'CreativeML Open RAIL++-M'}
    converted = {'request': {}, 'kind': 'scr', 'used': {}, 'left_out': {}, 'source': {'file': 'scr.pkl'}}
    demo = {'procedure': 3, 'base': 'c869', 'seed': 0}
    contents = {'metrics.json': test, 'fetched.json': fetched, 'conversion.json': converted, 'demo.json': demo}
    for name, content in contents.items():
        (tmp_path / name).write_text(json.dumps(content))
    found = {name: inspected(tmp_path / name) for name in contents}
    assert found['metrics.json']['identity'] == 'ab' and found['metrics.json']['recipe_version'] == 1
    assert found['metrics.json']['details']['metrics'] == {'mIoU': 1.5}
    assert found['fetched.json']['licence'] == 'CreativeML Open RAIL++-M'
    assert found['conversion.json']['kind'] == 'report of a conversion'
    assert found['demo.json']['base'] == {'weights': 'c869'} == inspected(tmp_path)['base']


def others(folder):
    """Writes files that are not of this package; yields each with words of its refusal."""
    Image.new('RGB', (2, 2)).save(folder / 'a.png')
    Image.new('RGB', (2, 2)).save(folder / 'a.jpg')
    torch.save({'weight': torch.ones(1)}, folder / 'other.pth')
    save_file({'weight': torch.ones(1)}, folder / 'other.safetensors')
    with zipfile.ZipFile(folder / 'a.zip', 'w') as archive:
        archive.writestr('x', b'')
    np.savez(folder / 'a.npz', x=np.ones(2))
    (folder / 'empty').mkdir()
    (folder / 'full').mkdir()
    (folder / 'full' / 'notes.md').write_text('x')
    os.mkfifo(folder / 'pipe')
    contents = {
        **{
            'x.txt': b'text',
            'x.html': b'<html>',
            'none': b'',
            'x.json': b'{"a": 1}',
            'y.json': b'{',
            'x.py': b'import os',
        },
        **{'x.pkl': pickle.dumps({}), 'x.gz': gzip.compress(b'x'), 'x.bin': b'\1\0\2', 'x.jsonl': b'{"a": 1}\n'},
        'x.py': b'import os',
        'pointer.safetensors': b'version https://git-lfs.github.com/spec/v1\n',
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return {
        **{'a.png': 'a PNG image', 'a.jpg': 'a JPEG image', 'other.pth': 'without the entries meta and state_dict'},
        **{
            'other.safetensors': 'without a header',
            'a.zip': 'a zip file, but not a checkpoint',
            'none': 'an empty file',
        },
        **{'a.npz': 'a zip file, but not a checkpoint', 'empty': 'that is empty', 'full': 'a folder with notes.md'},
        **{'pipe': 'a pipe', 'x.txt': 'a text file', 'x.html': 'a web page', 'x.json': 'a JSON file of another kind'},
        **{'y.json': 'not valid JSON', 'x.py': 'a text file', 'x.pkl': 'which can run code', 'x.gz': 'a gzip archive'},
        **{'x.bin': 'a binary file', 'x.jsonl': 'a file of JSON lines', 'missing': 'does not exist'},
        'none': 'an empty file',
        'pointer.safetensors': 'is a Git LFS pointer',
    }


def test_other_files_are_refused_by_name_in_one_sentence(tmp_path, capsys):
    for name, words in others(tmp_path).items():
        assert main(['inspect', str(tmp_path / name)]) == 1
        error = capsys.readouterr().err.strip()
        assert error.startswith(f'error: {tmp_path / name} ') and words in error, error
        assert len(error.splitlines()) == 1 and 'Traceback' not in error


class Hostile:
    def __reduce__(self):
        return os.system, ('touch canary',)


def test_hostile_files_run_nothing(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({'meta': {'cfg': 'x = 1'}, 'state_dict': {'w': Hostile()}}, 'code.pth')
    torch.save(
        {'meta': {'cfg': '__import__("os").system("touch canary")'}, 'state_dict': {'w': torch.ones(1)}}, 'cfg.pth'
    )
    key = ()
    for _ in range(60):
        key = (key, key)
    with zipfile.ZipFile('keys.pth', 'w') as archive:
        archive.writestr('archive/data.pkl', pickle.dumps({'meta': {'a': 1}, 'state_dict': {'b': [key]}}, 2))
    Path('header.safetensors').write_bytes(struct.pack('<Q', 2**62) + b'{}')
    Path('deep.json').write_text('[' * 10**6)
    with zipfile.ZipFile('bomb.pth', 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/data.pkl', bytes(2**27))
    status = {name: main(['inspect', name]) for name in ('code.pth', 'keys.pth', 'cfg.pth', 'header.safetensors')}
    status |= {name: main(['inspect', name]) for name in ('deep.json', 'bomb.pth')}
    error = capsys.readouterr().err
    assert 'could run code: posix.system' in error and 'header.safetensors' in error and 'bomb.pth' in error
    assert status['code.pth'] == status['header.safetensors'] == status['deep.json'] == status['bomb.pth'] == 1
    assert status['cfg.pth'] == status['keys.pth'] == 0 and not Path('canary').exists()


def test_damaged_files_are_named(files, tmp_path, capsys):
    for name in ('rass', 'adapter'):
        source = getattr(files, name)
        cut = tmp_path / source.name
        cut.write_bytes(source.read_bytes()[:1000])
        assert main(['inspect', str(cut)]) == 1
        assert str(cut) in capsys.readouterr().err
    pack = shutil.copytree(files.folder / 'pack', tmp_path / 'pack')
    (pack / 'config.yaml').write_text('x')
    assert main(['inspect', str(pack)]) == 1 and 'config.yaml was changed' in capsys.readouterr().err


def test_torch_is_imported_for_bases_only(files):
    """The weights of a base are hashed with torch; all other files are read without it."""
    script = (
        'import sys; from rass_mm_cli.main import main\n'
        'assert [main(["inspect", path]) for path in sys.argv[1:]] == [0] * (len(sys.argv) - 1)\n'
        'assert not {"torch", "mmengine", "mmseg", "diffusers", "transformers"} & set(sys.modules)'
    )
    folders = [files.folder / name for name in ('pack', 'segmented', 'restorer')]
    done = python(
        '-c', script, files.rass, files.adapter, *folders, ROOT / 'docs' / 'robustness' / 'camvid' / 'RASS.json'
    )
    assert done.returncode == 0, done.stderr


def test_table_shows_what_is_not_stated(files, capsys):
    assert main(['inspect', str(files.adapter)]) == 0
    lines = capsys.readouterr().out
    assert 'licence' in lines and NOT_STATED in lines and 'sky, car, road' in lines
    assert shown('rank', None) == NOT_STATED and shown('classes', [str(n) for n in range(150)]).endswith(
        '(150 in total)'
    )
    assert set(facts('x')) == set(FIELDS)


def test_identity_is_that_of_the_same_weights(files, inspected, tmp_path):
    tensors = load_file(files.folder / 'pack' / 'model.safetensors')
    state = torch.load(files.rass, weights_only=True)['state_dict']
    assert tensors.keys() == state.keys() and all(tensors[name].equal(state[name]) for name in tensors)
    assert inspected(files.rass)['identity'] == inspected(shutil.copy(files.rass, tmp_path / 'renamed.pth'))['identity']
