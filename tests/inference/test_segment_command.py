"""`rass-mm segment` on folders: labels of mmseg, formats, resuming, damaged files and refused outputs."""

import csv
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.apis import inference_model, init_model
from PIL import Image, PngImagePlugin
from tiny_segmentors import SCENES, shipped, write_checkpoint

from rass_mm.files.manifest import MANIFEST
from rass_mm.files.verified import VERIFIED
from rass_mm.inference.manifest import Manifest
from rass_mm_cli.main import main

NAMES = ['a', 'deep', 'grey', 'sub/b', 'sub/turned', 'wide']
READ = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]


def segment(sources, out, checkpoint, *options):
    sources = sources if isinstance(sources, list) else [sources]
    given = [*sources, out, '--checkpoint', checkpoint, '--device', 'cpu', *options]
    return main(['segment', *map(str, given)])


def mmsegs(trained, file, **test_cfg):
    """The label map of mmseg's own API, and its sample."""
    config = trained.config.copy()
    config.test_pipeline = READ
    if test_cfg:
        config.model.test_cfg = test_cfg
    sample = inference_model(init_model(config, str(trained.file), 'cpu'), str(file))
    return sample.pred_sem_seg.data[0].numpy(), sample


def labels(out, name):
    return np.asarray(Image.open(out / 'labels' / f'{name}.png'))


def contents(folder):
    """The bytes of all files but the manifest, whose order is that of the work, and the modification times."""
    files = (path for path in folder.rglob('*') if path.is_file() and path.name not in (MANIFEST, VERIFIED))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope='module')
def done(trained, photos, tmp_path_factory):
    """The photos, segmented with all outputs of a baseline."""
    out = tmp_path_factory.mktemp('done') / 'out'
    assert segment(photos, out, trained.plain.file, '--confidence') == 0
    return out


def source_of(photos, name):
    return next(path for path in photos.rglob('*.*') if path.relative_to(photos).with_suffix('').as_posix() == name)


def test_labels_are_those_of_mmseg(trained, photos, done):
    seen = set()
    for name in NAMES:
        expected, _ = mmsegs(trained.plain, source_of(photos, name))
        assert np.array_equal(labels(done, name), expected), name
        seen |= set(np.unique(expected))
    assert len(seen) >= 3


def test_labels_of_rass_are_those_of_mmseg(trained, photos, tmp_path):
    assert segment(photos, tmp_path / 'out', trained.rass.file, '--dtype', 'float32') == 0
    for name in ('sub/turned', 'wide'):
        expected, _ = mmsegs(trained.rass, source_of(photos, name))
        assert np.array_equal(labels(tmp_path / 'out', name), expected) and len(np.unique(expected)) >= 3


def test_outputs_have_the_size_of_the_upright_photo(photos, done):
    assert Image.open(photos / 'sub' / 'turned.jpg').size == (90, 60)
    for folder in ('labels', 'confidence'):
        assert Image.open(done / folder / 'sub' / 'turned.png').size == (60, 90)
    overlay = np.asarray(Image.open(done / 'overlays' / 'sub' / 'turned.png'))
    assert overlay.shape[0] > 90 / 60 * overlay.shape[1]  # enlarged, with a legend below


def test_label_maps_are_palettes_of_ids(done):
    image = Image.open(done / 'labels' / 'a.png')
    assert image.mode == 'P' and image.getpalette()[: 3 * 12] == [
        value for color in SCENES['palette'] for value in color
    ]


def test_shares_are_those_of_the_label_maps(done):
    rows = list(csv.DictReader((done / 'shares.csv').open()))
    record = json.loads((done / 'shares.json').read_text())
    assert [row['image'].rpartition('.')[0] for row in rows] == NAMES
    for row, name in zip(rows, NAMES, strict=True):
        found = labels(done, name)
        assert (int(row['height']), int(row['width'])) == found.shape
        expected = np.bincount(found.ravel(), minlength=12) / found.size
        assert np.allclose([float(row[name]) for name in SCENES['classes']], expected, rtol=1e-5)
        stored = {entry['class']: entry['share'] for entry in record['images'][row['image']]['shares']}
        assert stored == pytest.approx({SCENES['classes'][i]: x for i, x in enumerate(expected) if x}, abs=1e-6)


def test_confidence_is_the_largest_probability(trained, photos, done):
    _, sample = mmsegs(trained.plain, photos / 'a.png')
    expected = sample.seg_logits.data.softmax(0).amax(0).mul(255).numpy()
    found = np.asarray(Image.open(done / 'confidence' / 'a.png'))
    assert np.abs(found - expected).max() <= 0.51 and found.std() > 1


def test_what_is_left_out_is_counted_by_kind(trained, photos, tmp_path, caplog):
    caplog.set_level('INFO')
    assert segment(photos, tmp_path / 'out', trained.plain.file) == 0
    assert 'Left out: files of type .txt (1), e.g. notes.txt' in caplog.text
    assert '6 of 6 images' in caplog.text and 'Mode:' in caplog.text and 'megapixels' in caplog.text


def test_missing_outputs_are_made_again_byte_for_byte(trained, photos, done, tmp_path):
    out = tmp_path / 'out'
    shutil.copytree(done, out)
    for name in ('labels/a.png', 'overlays/sub/b.png', 'confidence/wide.png', 'shares.csv'):
        (out / name).unlink()
    assert segment(photos, out, trained.plain.file, '--confidence') == 0
    assert contents(out) == contents(done)
    (out / 'shares.json').unlink()
    assert segment(photos, out, trained.plain.file, '--confidence') == 0
    assert contents(out) == contents(done)


def test_an_interrupted_run_resumes(trained, photos, done, tmp_path, monkeypatch, capsys):
    from rass_mm.inference import segment as module

    read, calls = module.read_bgr, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(module, 'read_bgr', stopping)
    out = tmp_path / 'out'
    assert segment(photos, out, trained.plain.file, '--confidence') == 130
    assert 'run the same command again' in ' '.join(capsys.readouterr().err.split())
    assert len(list(out.glob('labels/**/*.png'))) == 3 and len((out / 'shares.csv').read_text().splitlines()) == 4
    assert segment(photos, out, trained.plain.file, '--confidence') == 0
    assert len(calls) == 4 + 3 and contents(out) == contents(done)


def test_a_photo_does_not_depend_on_the_others(trained, photos, done, tmp_path):
    options = ('--confidence', '--mode', 'windows')
    assert segment(photos, tmp_path / 'all', trained.rass.file, *options) == 0
    assert segment(photos / 'wide.png', tmp_path / 'one', trained.rass.file, *options) == 0
    alone, together = contents(tmp_path / 'one'), contents(tmp_path / 'all')
    assert {name for name in alone if name.endswith('.png')} == {f'{kind}/wide.png' for kind in KINDS}
    assert all(together[name] == alone[name] for name in alone if name.endswith('.png'))


KINDS = ('labels', 'overlays', 'confidence')


@pytest.mark.parametrize('options', [['--batch-size', '2'], ['--mode', 'windows'], ['--dtype', 'bfloat16']])
def test_other_settings_need_another_folder(trained, photos, done, capsys, options):
    before = contents(done)
    assert segment(photos, done, trained.plain.file, '--confidence', *options) == 1
    assert 'other settings' in capsys.readouterr().err and contents(done) == before


def test_damaged_files_are_listed_and_the_others_are_segmented(trained, photos, tmp_path, capsys):
    folder = tmp_path / 'in'
    shutil.copytree(photos, folder)
    whole = (folder / 'a.png').read_bytes()
    (folder / 'a.png').write_bytes(whole[: len(whole) // 2])
    (folder / 'text.jpg').write_text('text')
    (folder / 'empty.png').touch()
    assert segment(folder, tmp_path / 'out', trained.plain.file) == 1
    message = capsys.readouterr().err
    assert '3 of 8 images cannot be segmented' in message and 'The other 5 are segmented' in message
    assert all(str(folder / name) in message for name in ('a.png', 'text.jpg', 'empty.png'))
    assert len(list((tmp_path / 'out' / 'labels').rglob('*.png'))) == 5


def test_two_sources_of_one_output_are_refused_before_anything_is_written(trained, photos, tmp_path, capsys):
    folder = tmp_path / 'in'
    shutil.copytree(photos, folder)
    shutil.copy(folder / 'a.png', folder / 'a.jpg')
    assert segment(folder, tmp_path / 'out', trained.plain.file) == 1
    assert 'would both become' in capsys.readouterr().err and not (tmp_path / 'out').exists()
    assert segment([photos / 'a.png', folder / 'a.png'], tmp_path / 'out', trained.plain.file) == 1
    assert 'would both become' in capsys.readouterr().err and not (tmp_path / 'out').exists()


def test_no_output_overwrites_a_photo(trained, photos, tmp_path, capsys):
    out = tmp_path / 'out'
    shutil.copytree(photos, out / 'overlays')
    before = contents(out)
    assert segment(out / 'overlays', out, trained.plain.file) == 1
    assert 'one of the images to process' in capsys.readouterr().err and contents(out) == before
    assert segment(photos, photos / 'out', trained.plain.file) == 1
    assert 'in the image folder' in capsys.readouterr().err and not (photos / 'out').exists()


def test_files_folders_and_patterns_can_be_listed(trained, photos, tmp_path):
    sources = [photos / 'a.png', photos / 'sub', f'{photos}/w*.png', photos / 'sub' / 'b.webp']
    assert segment(sources, tmp_path / 'out', trained.plain.file) == 0
    made = sorted(path.name for path in (tmp_path / 'out' / 'labels').rglob('*.png'))
    assert made == ['a.png', 'b.png', 'turned.png', 'wide.png']


def test_file_names_can_be_any_bytes(trained, photos, tmp_path):
    (tmp_path / 'in').mkdir()
    name = os.fsdecode(b'caf\xe9.png')
    shutil.copy(photos / 'a.png', tmp_path / 'in' / name)
    assert segment(tmp_path / 'in', tmp_path / 'out', trained.plain.file) == 0
    assert (tmp_path / 'out' / 'labels' / name).is_file()
    assert '\\udce9.png,75,91' in (tmp_path / 'out' / 'shares.csv').read_text(encoding='utf-8')
    assert '\\udce9.png"' in (tmp_path / 'out' / 'shares.json').read_text(encoding='utf-8')
    (tmp_path / 'in' / name).write_text('text')
    assert segment(tmp_path / 'in', tmp_path / 'out', trained.plain.file) == 1


def test_animations_and_long_texts_are_no_damage(trained, photos, tmp_path, caplog):
    (tmp_path / 'in').mkdir()
    image, info = Image.open(photos / 'a.png'), PngImagePlugin.PngInfo()
    info.add_text('workflow', 'x' * 3_000_000, zip=True)
    image.save(tmp_path / 'in' / 'text.png', pnginfo=info)
    image.save(tmp_path / 'in' / 'moving.gif', save_all=True, append_images=[image.rotate(90)])
    assert segment(tmp_path / 'in', tmp_path / 'out', trained.plain.file) == 0
    assert np.array_equal(labels(tmp_path / 'out', 'text'), mmsegs(trained.plain, photos / 'a.png')[0])
    assert labels(tmp_path / 'out', 'moving').shape == (91, 75)
    assert 'moving.gif has 2 frames' in caplog.text


def bomb(side=20000):
    """A PNG of a few hundred kilobytes that takes 1.2 GB when it is decoded."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b'\0' * 1000)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', body) + chunk(b'IEND', b'')


@pytest.mark.parametrize('command', ['segment', 'restore'])
def test_images_above_the_limit_are_not_decoded(trained, photos, tmp_path, tiny_base, capsys, command):
    folder = tmp_path / 'in'
    folder.mkdir()
    (folder / 'bomb.png').write_bytes(bomb())
    shutil.copy(photos / 'a.png', folder)
    shutil.copy(photos / 'sub' / 'turned.jpg', folder)
    model = ['--checkpoint', trained.plain.file] if command == 'segment' else restorer_options(tmp_path, tiny_base)
    given = [command, folder, tmp_path / 'out', *model, '--device', 'cpu', '--max-pixels', 6000]
    assert main([str(part) for part in given]) == 1
    message = capsys.readouterr().err
    assert '2 of 3 images' in message and '--max-pixels 400000000' in message and '20000x20000' in message
    assert '--max-pixels 6825' in message  # 75 x 91
    assert [path.stem for path in (tmp_path / 'out').rglob('turned.*')]


def restorer_options(folder, base):
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.one_step_restorer import OneStepRestorer

    read = read_base(base)
    OneStepRestorer(read).save(folder / 'scr.safetensors', read.identity, 'ClassTokens', ['tree', 'car'])
    return ['--adapter', folder / 'scr.safetensors', '--base', base]


def test_a_checkpoint_whose_config_is_code_is_refused(trained, photos, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = torch.load(trained.plain.file, weights_only=True)
    canary = tmp_path / 'canary'
    texts = {
        'model.type': f"model = dict(type='os.system', command='touch {canary}')",
        'model': f"model = __import__('os').system('touch {canary}')",
        'custom_imports': loaded['meta']['cfg'].replace("'rass_mm'", "'evil_module'"),
    }
    (tmp_path / 'evil_module.py').write_text(f'open({str(canary)!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    for key, text in texts.items():
        loaded['meta']['cfg'] = text
        torch.save(loaded, tmp_path / 'evil.pth')
        assert segment(photos, tmp_path / 'out', tmp_path / 'evil.pth') == 1
        message = capsys.readouterr().err
        reasons = ('cannot be used', 'not a registered name', 'not a literal', 'is not allowed')
        assert key in message and any(reason in message for reason in reasons), message
    assert not canary.exists() and not (tmp_path / 'out').exists()


@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='the memory is read from /proc')
def test_memory_does_not_grow_with_the_number_of_photos(trained, tmp_path, monkeypatch):
    (tmp_path / 'in').mkdir()
    colors = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8)
    for number, color in enumerate(colors):
        side = 48 + number % 5 * 8  # sizes alternate
        Image.fromarray(color).resize((64, side)).save(tmp_path / 'in' / f'{number:03}.png')
    used, add = [], Manifest.add

    def measuring(self, line):
        add(self, line)
        used.append(int(Path('/proc/self/statm').read_text().split()[1]) * 4096 / 2**20)

    monkeypatch.setattr(Manifest, 'add', measuring)
    assert segment(tmp_path / 'in', tmp_path / 'out', trained.plain.file) == 0
    assert len(used) == 100 and used[-1] - used[20] < 20, used[::10]


def test_more_than_255_classes_give_16_bit_label_maps(photos, tmp_path):
    names = [f'thing {i}' for i in range(300)]
    config = shipped('baselines/resnet_scenes_tiny.py', **{'model.decode_head.num_classes': 300})
    file = write_checkpoint(tmp_path / 'many.pth', config, {'dataset_meta': {'classes': names}})
    loaded = torch.load(file, weights_only=True)
    loaded['state_dict']['decode_head.conv_seg.bias'][200:] += 10
    torch.save(loaded, file)
    assert segment(photos / 'a.png', tmp_path / 'out', file) == 0
    image = Image.open(tmp_path / 'out' / 'labels' / 'a.png')
    assert image.mode.startswith('I') and 255 < np.asarray(image).max() < 300
    assert 'thing 299' in (tmp_path / 'out' / 'shares.csv').read_text()


def test_a_checkpoint_of_another_model_is_refused(trained, photos, tmp_path, capsys):
    assert segment(photos, tmp_path / 'out', trained.plain.file, '--cfg-options', 'model.backbone.depth=34') == 1
    message = capsys.readouterr().err
    assert 'does not fit' in message and 'missing' in message


def test_a_checkpoint_without_config_needs_one(trained, photos, tmp_path, capsys):
    loaded = torch.load(trained.plain.file, weights_only=True)
    torch.save({'state_dict': loaded['state_dict']}, tmp_path / 'bare.pth')
    assert segment(photos / 'a.png', tmp_path / 'out', tmp_path / 'bare.pth') == 1
    assert 'contains no config' in capsys.readouterr().err
    given = ('--config', 'baselines/resnet_scenes_tiny.py')
    assert segment(photos / 'a.png', tmp_path / 'out', tmp_path / 'bare.pth', *given) == 0
    assert np.array_equal(labels(tmp_path / 'out', 'a'), mmsegs(trained.plain, photos / 'a.png')[0])
    assert 'sky' in (tmp_path / 'out' / 'shares.csv').read_text()  # names from the data set of the config
