"""Data set builder under realistic use: whole folders, several workers, interruptions and damaged files."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from rass_mm.degradation import applying, builder, copies, drawing, recipe
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.verified import VERIFIED
from rass_mm_cli.main import run_command

TOOL = Path(__file__).parents[2] / 'tools' / 'make_lq_dataset.py'
# Ends the run like `kill -9`, before the third image is renamed or before the third line of the manifest is written.
KILLED = """
import os, signal, sys
from rass_mm.files import atomic
from rass_mm.degradation import builder

def killing(function, calls):
    def wrapped(*args, **kwargs):
        nonlocal calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped

if __name__ == '__main__':
    images, out, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if workers == 1:
        atomic.os.replace = killing(os.replace, 3)  # the partial manifest and two images
    else:
        # Settings, their hash, the lock, the header, and two images, each with the states of its two files.
        builder.json.dumps = killing(builder.json.dumps, 4 + 2 * 3)
    builder.build_lq_dataset(images, out, 0, workers)
"""


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('clean')
    rng = np.random.default_rng(0)
    for number in range(12):
        path = folder / ('train' if number % 3 else 'val/deep') / f'{number}.{"jpg" if number % 2 else "png"}'
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = cv2.resize(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8), (61 + number, 40))
        cv2.imwrite(str(path), picture)
    (folder / 'notes.txt').write_text('not an image')
    return folder


@pytest.fixture(scope='module')
def finished(images, tmp_path_factory):
    out = tmp_path_factory.mktemp('lq') / 'out'
    summary = builder.build_lq_dataset(images, out, seed=0)
    assert (summary.images, summary.made, summary.manifest) == (12, 12, out / 'manifest.jsonl')
    return out


def content(folder):
    """Returns the bytes of all files, except the modification times, which are never the same."""
    files = (path for path in folder.rglob('*') if path.is_file() and path.name != VERIFIED)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def environment(root):
    return {**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'}


@pytest.fixture
def lean_root(tmp_path):
    """Provides the builder in a package that does not register with mmseg, so that its processes start in a second."""
    package = tmp_path / 'lean' / 'rass_mm'
    package.mkdir(parents=True)
    (package / '__init__.py').touch()
    for name in ('errors.py', 'version.py', 'parallel.py', 'files', 'jobs', 'degradation'):
        (package / name).symlink_to(Path(builder.__file__).parents[1] / name)
    return package.parent


def test_every_manifest_line_reproduces_its_image(images, finished):
    header, *lines = map(json.loads, (finished / 'manifest.jsonl').read_text().splitlines())
    assert header['seed'] == 0 and header['versions']['opencv'] == cv2.__version__ and header['source'] == str(images)
    assert header['recipe']['first']['jpeg_quality'] == [30, 95]
    names = [line['image'] for line in lines]
    assert len(names) == 12 and names == sorted(names)
    for line in lines:
        assert line['output'] == str(Path(line['image']).with_suffix('.png'))
        clean = cv2.imread(str(images / line['image']))
        degraded = cv2.imread(str(finished / line['output']))
        assert np.array_equal(applying.apply(clean, line['parameters']), degraded)
        drawn = drawing.draw(recipe.OSEDIFF, np.random.default_rng(line['seed']), *clean.shape[:2])
        assert drawn == line['parameters']
    assert [path.name for path in finished.rglob('.*')] == [VERIFIED] and not (
        finished / 'manifest.partial.jsonl'
    ).exists()


def test_two_workers_write_the_same_bytes(images, finished, tmp_path):
    command = [sys.executable, TOOL, images, tmp_path / 'out', '--workers', '2']
    run = subprocess.run(command, env=environment(TOOL.parents[1]), capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith('12 images in ') and run.stdout.count('\n') == 1
    assert '12 of 12 images' in run.stderr
    assert content(tmp_path / 'out') == content(finished)


@pytest.mark.parametrize('workers', [1, 2])
def test_a_killed_run_resumes_to_the_same_bytes(images, finished, lean_root, tmp_path, workers):
    out, script = tmp_path / 'out', tmp_path / 'killed.py'
    script.write_text(KILLED)
    command = [sys.executable, script, images, out, str(workers)]
    assert subprocess.run(command, env=environment(lean_root), timeout=120).returncode == -signal.SIGKILL
    partial = out / 'manifest.partial.jsonl'
    assert len(partial.read_text().splitlines()) == 3 and not (out / 'manifest.jsonl').exists()
    assert workers > 1 or list(out.rglob('*/.*'))  # an image that was being written
    with partial.open('a') as file:
        file.write('{"image": "train/1')  # a line that was being written
    assert builder.build_lq_dataset(images, out, seed=0).made == 10
    assert content(out) == content(finished)


def test_a_missing_output_is_made_again_and_a_finished_copy_is_left_alone(images, finished):
    before = content(finished)
    (finished / 'train' / '1.png').unlink()
    assert builder.build_lq_dataset(images, finished, seed=0).made == 1
    assert builder.build_lq_dataset(images, finished, seed=0).made == 0
    assert content(finished) == before


@pytest.mark.parametrize(
    'other', [{'seed': 1}, {'recipe': recipe.override(recipe.OSEDIFF, {'final_sinc_prob': 0})}, {'suffix': None}]
)
def test_another_seed_recipe_or_type_is_refused(images, finished, other):
    before = content(finished)
    with pytest.raises(DataError, match='describes a copy with seed 0.*another output folder'):
        builder.build_lq_dataset(images, finished, **{'seed': 0, **other})
    assert content(finished) == before


def test_damaged_images_are_listed_and_the_others_are_made(images, tmp_path, capsys):
    folder, out = tmp_path / 'clean', tmp_path / 'lq'
    folder.mkdir()
    whole = (images / 'train' / '1.jpg').read_bytes()
    (folder / 'good.jpg').write_bytes(whole)
    (folder / 'short.jpg').write_bytes(whole[: len(whole) // 2])
    (folder / 'short.png').write_bytes((images / 'train' / '2.png').read_bytes()[:300])
    (folder / 'empty.png').write_bytes(b'')
    assert cv2.imread(str(folder / 'short.jpg')) is not None  # OpenCV alone does not detect the damage
    assert run_command('make-lq', [str(folder), str(out), '--workers', '1', '--ext', 'keep']) == 1
    message = capsys.readouterr().err
    assert '3 of 4 images' in message and 'Traceback' not in message
    assert all(f'{name}: ' in message for name in ('short.jpg', 'short.png', 'empty.png'))
    assert 'truncated' in message and 'not an image of a known type' in message
    assert (out / 'good.jpg').exists() and not (out / 'manifest.jsonl').exists()
    for name in ('short.jpg', 'short.png', 'empty.png'):
        (folder / name).unlink()
    assert run_command('make-lq', [str(folder), str(out), '--workers', '1', '--ext', 'keep']) == 0
    assert '1 images' in capsys.readouterr().out and (out / 'manifest.jsonl').exists()


def test_unusable_folders_are_named(images, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DataError, match=r'empty.*\.jpeg, \.jpg, \.png'):
        builder.build_lq_dataset(tmp_path / 'empty', tmp_path / 'out')
    with pytest.raises(DataError, match='does not exist'):
        builder.build_lq_dataset(tmp_path / 'absent', tmp_path / 'out')
    for inside in (images, images / 'lq'):
        with pytest.raises(DataError, match='inside the image folder'):
            builder.build_lq_dataset(images, inside)
    with pytest.raises(ConfigError, match='workers'):
        builder.build_lq_dataset(images, tmp_path / 'out', workers=0)
    assert not (tmp_path / 'out').exists()


def test_two_images_with_one_name_and_foreign_files_are_refused(images, tmp_path):
    folder, out = tmp_path / 'clean', tmp_path / 'out'
    for path in (folder, out):
        path.mkdir()
    (folder / 'a.jpg').write_bytes((images / 'train' / '1.jpg').read_bytes())
    (out / 'a.png').write_bytes(b'something of value')
    with pytest.raises(DataError, match='would overwrite, e.g. a.png'):
        builder.build_lq_dataset(folder, out)
    (folder / 'a.png').write_bytes((images / 'train' / '2.png').read_bytes())
    with pytest.raises(DataError, match='both become a.png'):
        builder.build_lq_dataset(folder, out)


def settled(out):
    """Makes the record newer than all files, as if some time had passed."""
    os.utime(out / VERIFIED, (2**32, 2**32))


def unread(monkeypatch):
    """Returns the list of the files whose contents a run compares."""
    found = []
    for name in ('file_sha256', 'output_state'):
        honest = getattr(copies, name)
        monkeypatch.setattr(copies, name, lambda path, *more, own=honest: found.append(path.name) or own(path, *more))
    return found


def test_files_with_the_same_size_and_time_are_not_read_again(images, tmp_path, monkeypatch):
    out, read = tmp_path / 'out', unread(monkeypatch)
    builder.build_lq_dataset(images / 'val', out)
    settled(out)
    assert builder.build_lq_dataset(images / 'val', out).made == 0 and read == []
    output = next(out.rglob('*.png'))
    stamp = output.stat().st_mtime_ns
    os.utime(output, ns=(stamp + 1, stamp + 1))
    assert builder.build_lq_dataset(images / 'val', out).made == 0 and read == [output.name]
    output.write_bytes(b'')
    os.utime(output, ns=(stamp + 1, stamp + 1))
    settled(out)
    assert builder.build_lq_dataset(images / 'val', out).made == 1


def test_a_copied_folder_and_one_without_a_record_are_read(images, tmp_path, monkeypatch, caplog):
    read = unread(monkeypatch)
    builder.build_lq_dataset(images / 'val', tmp_path / 'first')
    shutil.copytree(tmp_path / 'first', tmp_path / 'copied', copy_function=shutil.copyfile)
    with caplog.at_level('INFO'):
        assert builder.build_lq_dataset(images / 'val', tmp_path / 'copied').made == 0
    outputs = sorted(path.name for path in (tmp_path / 'first').rglob('*.png'))
    assert sorted(read) == outputs and 'checking: 4 of 4 finished images' in caplog.text
    read.clear()
    (tmp_path / 'first' / VERIFIED).unlink()
    assert builder.build_lq_dataset(images / 'val', tmp_path / 'first').made == 0
    assert len(read) == 2 * len(outputs)  # the sources as well


def test_a_changed_source_is_noticed_by_its_time(images, tmp_path):
    shutil.copytree(images / 'val', tmp_path / 'in')
    builder.build_lq_dataset(tmp_path / 'in', tmp_path / 'out')
    source = next((tmp_path / 'in').rglob('*.png'))
    cv2.imwrite(str(source), 255 - cv2.imread(str(source)))
    settled(tmp_path / 'out')
    assert builder.build_lq_dataset(tmp_path / 'in', tmp_path / 'out').made == 1
