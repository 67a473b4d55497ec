"""Packs that are moved predict what the checkpoint predicts."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, python
from PIL import Image
from safetensors.torch import load_file

import rass_mm
from rass_mm.errors import BaseFolderError, ConfigError, PackError
from rass_mm.files.packs.reading import is_pack, open_pack, read_pack
from rass_mm_cli.main import main

SEGMENTORS = ('plain', 'rass', 'r2s')
ALONE = """
import os, sys
import rass_mm
pack, photo, *hidden = sys.argv[1:]
load = rass_mm.load_segmentor
load(pack, device='cpu')  # all imports, because the packages may be in a folder of this user
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event in ('open', 'os.listdir') else None)
if os.getuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
    assert not os.access(hidden[0], os.R_OK)
labels = load(pack, device='cpu').predict(photo).labels
assert opened and not [file for file in opened if file.startswith(tuple(hidden))], opened
print('LABELS', labels.tobytes().hex())
"""


def labels(model, photos):
    return [found.labels for found in model.predict(sorted(photos.glob('*.png')))]


@pytest.mark.parametrize('name', SEGMENTORS)
def test_pack_predicts_the_labels_of_the_checkpoint(name, models, make, photos, tmp_path, monkeypatch):
    expected = labels(rass_mm.load_segmentor(getattr(models, name), device='cpu'), photos)
    assert all(len(np.unique(found)) > 2 for found in expected)
    shutil.copytree(make(name, *(['--with-base'] if name != 'plain' else [])), tmp_path / 'elsewhere')
    monkeypatch.chdir(tmp_path)
    found = labels(rass_mm.load_segmentor('elsewhere', device='cpu'), photos)
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def test_pack_restores_the_pixels_of_the_adapter(models, make, tiny_base, photos, tmp_path):
    expected = rass_mm.load_restorer(models.restorer, tiny_base, device='cpu').predict(photos / 'wide.png').pixels
    moved = shutil.copytree(make('restorer', '--with-base'), tmp_path / 'elsewhere')
    found = rass_mm.load_restorer(moved, device='cpu').predict(photos / 'wide.png').pixels
    assert np.array_equal(found, expected) and not np.array_equal(found, np.asarray(Image.open(photos / 'wide.png')))


@pytest.mark.slow
def test_pack_works_for_another_user_who_sees_no_configs(models, make, photos, tmp_path):
    folder = Path(tempfile.mkdtemp())  # pytest's folders are not open to other users
    try:
        moved = shutil.copytree(make('plain'), folder / 'plain')
        shutil.copy(photos / 'wide.png', folder)
        for path in (folder, *folder.rglob('*')):
            if path.is_dir() or path.suffix == '.png':
                path.chmod(0o755 if path.is_dir() else 0o644)
        models.plain.parent.chmod(0o700)
        env = {'HOME': str(folder), 'RASS_MM_CACHE': str(folder / 'none')}
        hidden = (models.plain.parent, ROOT / 'configs')
        done = python('-c', ALONE, moved, folder / 'wide.png', *hidden, cwd=folder, env=env)
        assert done.returncode == 0, done.stderr
    finally:
        shutil.rmtree(folder)
    expected = rass_mm.load_segmentor(models.plain, device='cpu').predict(photos / 'wide.png').labels
    assert f'LABELS {expected.tobytes().hex()}' in done.stdout


def test_commands_take_the_folder(models, make, tiny_base, photos, tmp_path):
    pack, restorer = make('rass', '--with-base'), make('restorer', '--with-base')
    for source, out in ((pack, 'packed'), (models.rass, 'plain')):
        assert main(['segment', str(photos), str(tmp_path / out), '--checkpoint', str(source)]) == 0
    for source, out, base in ((restorer, 'restored', []), (models.restorer, 'plain', ['--base', str(tiny_base)])):
        command = ['restore', str(photos), str(tmp_path / f'{out}_pixels'), '--adapter', str(source), *base]
        assert main(command) == 0
    for one, other in (('packed/labels', 'plain/labels'), ('restored_pixels', 'plain_pixels')):
        files = sorted((tmp_path / one).glob('*.png'))
        assert len(files) == 2 and all(
            file.read_bytes() == (tmp_path / other / file.name).read_bytes() for file in files
        )


def test_a_job_continues_with_a_pack_that_was_moved(make, photos, tmp_path, capsys):
    for place in ('one', 'other'):
        moved = shutil.copytree(make('rass', '--with-base'), tmp_path / place)
        assert main(['segment', str(photos), str(tmp_path / 'out'), '--checkpoint', str(moved)]) == 0
    assert '0 of 2 images segmented now' in capsys.readouterr().out


def test_app_loads_packs(make):
    from rass_mm.app.models import ModelFiles, load_models

    files = ModelFiles(make('restorer', '--with-base'), checkpoint=make('rass', '--with-base'), baseline=make('plain'))
    models = load_models(files, 'cpu')
    assert models.restorer and set(models.segmentors) == {'segmentor', 'baseline'}
    assert list(models.words) == ['sky', 'car', 'road']


def test_mmseg_and_training_take_the_weights_of_a_pack(models, make):
    from mmseg.apis import init_model
    from tiny_segmentors import shipped

    model = init_model(shipped('baselines/resnet_scenes_tiny.py'), str(make('plain')), 'cpu')
    packed = load_file(make('plain') / 'model.safetensors')
    assert all(value.equal(packed[name]) for name, value in model.state_dict().items())


def test_base_is_found_by_name_or_by_hash(make, photos, tiny_base, other_base, tmp_path, monkeypatch):
    pack = make('rass')
    monkeypatch.chdir(tmp_path)
    expected = labels(rass_mm.load_segmentor(pack, base=tiny_base, device='cpu'), photos)
    with pytest.raises(BaseFolderError) as raised:
        rass_mm.load_segmentor(pack, device='cpu')
    message = str(raised.value)
    assert "needs the base 'tiny'" in message and '--with-base' in message and str(tmp_path / 'tiny') in message
    shutil.copytree(other_base, tmp_path / 'shelf' / 'tiny')  # the right name, but another base
    monkeypatch.setenv('RASS_MM_BASES', str(tmp_path / 'shelf'))
    with pytest.raises(BaseFolderError, match='another base'):
        rass_mm.load_segmentor(pack, device='cpu')
    shutil.copytree(tiny_base, tmp_path / 'shelf' / 'renamed')
    found = labels(rass_mm.load_segmentor(pack, device='cpu'), photos)
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


def test_published_base_is_named_with_its_command(make, tmp_path, monkeypatch):
    moved = shutil.copytree(make('rass'), tmp_path / 'pack')
    manifest = json.loads((moved / 'pack.json').read_text())
    manifest['base'] |= {'name': 'stable-diffusion-2-1-base', 'source': 'sd21-base'}
    (moved / 'pack.json').write_text(json.dumps(manifest))
    with pytest.raises(BaseFolderError, match='rass-mm fetch sd21-base'):
        rass_mm.load_segmentor(moved, device='cpu')


def test_models_are_saved_and_loaded_from_python(make, photos, tmp_path):
    model = rass_mm.Segmentor.from_pretrained(make('rass', '--with-base'), device='cpu')
    saved = model.save_pretrained(tmp_path / 'again', with_base=True, licence='MIT')
    again = rass_mm.Segmentor.from_pretrained(saved, device='cpu')
    assert all(np.array_equal(*pair) for pair in zip(labels(again, photos), labels(model, photos), strict=True))
    first, second = (read_pack(path).manifest for path in (make('rass', '--with-base'), saved))
    assert second['licence'] == 'MIT' and second['base'] == first['base'] and second['terms'] == first['terms']
    restorer = rass_mm.PhotoRestorer.from_pretrained(make('restorer', '--with-base'), device='cpu')
    assert is_pack(restorer.save_pretrained(tmp_path / 'restorer', with_base=True))
    open_pack(tmp_path / 'restorer', 'restorer')


def test_existing_folder_is_not_overwritten(models, tmp_path, capsys):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'notes.txt').write_text('kept')
    assert main(['pack', str(models.plain), str(tmp_path / 'mine')]) == 1
    assert 'already exists and is not overwritten' in capsys.readouterr().err
    assert [path.name for path in (tmp_path / 'mine').iterdir()] == ['notes.txt']


def test_failed_pack_leaves_nothing(models, tmp_path, monkeypatch):
    import rass_mm.inference.packs.parts as parts

    monkeypatch.setattr(parts, 'model_card', lambda *_: 1 / 0)
    source = rass_mm.load_segmentor(models.plain, device='cpu')
    with pytest.raises(ZeroDivisionError):
        source.save_pretrained(tmp_path / 'pack')
    assert [path for path in tmp_path.rglob('*') if not path.name.endswith('.lock')] == []


def test_licence_of_the_base_is_handed_over(models, tiny_base, tmp_path):
    base = shutil.copytree(tiny_base, tmp_path / 'base')
    (base / 'LICENSE').write_text('Attachment A')
    (base / 'unet' / '.hidden.json').write_text('{}')
    assert main(['pack', str(models.restorer), str(tmp_path / 'p'), '--base', str(base), '--with-base']) == 0
    assert (tmp_path / 'p' / 'base' / 'LICENSE.txt').read_text() == 'Attachment A'
    assert not (tmp_path / 'p' / 'base' / 'unet' / '.hidden.json').exists()


def test_kinds_are_not_confused(make, tmp_path):
    with pytest.raises(PackError, match='the pack of a restorer, not of a segmentor'):
        rass_mm.load_segmentor(make('restorer'))
    with pytest.raises(PackError, match='the pack of a segmentor, not of a restorer'):
        rass_mm.load_restorer(make('plain'))
    with pytest.raises(ConfigError, match='contains its config'):
        rass_mm.load_segmentor(make('plain'), 'baselines/resnet_scenes_tiny.py')
