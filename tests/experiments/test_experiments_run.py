"""The experiments' own command on a laboratory in a folder: real configs with few steps, real trainings and tests."""

import hashlib
import io
import json
import shlex
import shutil

import cv2
import numpy as np
import pytest
from commands import ROOT, warm

from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.degradation.recipe import OSEDIFF, override
from rass_mm.diffusion.base import read_base

pytest.importorskip('mmagic', reason='restorers need mmagic')
FEW = {
    'segmentation.py': ('max_iters = 1200', 'max_iters = 4'),
    'restoration.py': ('max_iters = 500', 'max_iters = 3'),
}


@pytest.fixture(scope='module')
def lab(tmp_path_factory, scenes, tiny_base):
    """A checkout of which only the number of steps is another one."""
    folder = tmp_path_factory.mktemp('lab')
    for name in ('rass_mm', 'configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(
        ROOT / 'experiments', folder / 'experiments', ignore=shutil.ignore_patterns('results', '__pycache__')
    )
    for name, (text, few) in FEW.items():
        file = folder / 'experiments' / 'configs' / '_base_' / name
        content = file.read_text()
        for before, after in (
            (text, few),
            ('interval=10)', 'interval=1)'),
            ('end=20', 'end=2'),
            ('begin=20', 'begin=2'),
        ):
            assert before in content
            content = content.replace(before, after)
        file.write_text(content)
    data, bases = folder / 'data' / 'experiments' / 'scenes', folder / 'bases' / 'experiments'
    for place in (data, bases):
        place.mkdir(parents=True)
    shutil.copytree(tiny_base, bases / 'scenes')
    (bases / 'scenes' / 'training.json').write_text(json.dumps({'recipe': {'seed': 5}}))
    for part in ('img_dir', 'ann_dir'):
        (data / part).symlink_to(scenes / part)
    first = override(OSEDIFF, {'version': 1})
    build_lq_dataset(data / 'img_dir' / 'val', data / 'img_lq' / 'val', recipe=first)
    return folder


def experiments(lab, *arguments):
    return warm('-m', 'experiments', *arguments, cwd=lab, env={'PYTHONPATH': str(lab)})


@pytest.fixture(scope='module')
def finished(lab):
    """The output of a run of RASS and R2S and of the systems they need."""
    done = experiments(lab, 'run', 'scenes', '--systems', 'r2s', 'rass', '--seeds', '3', '--workers', '2')
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def records_file(lab):
    return lab / 'experiments' / 'results' / 'scenes.jsonl'


def record(lab, name):
    (found,) = [r for r in map(json.loads, records_file(lab).read_text().splitlines()) if r['system'] == name]
    return found


def without_record(lab, *names):
    """Removes the records of systems; returns the whole file as it was."""
    whole = records_file(lab).read_text()
    kept = [line for line in whole.splitlines(keepends=True) if json.loads(line)['system'] not in names]
    records_file(lab).write_text(''.join(kept))
    return whole


def test_one_record_per_run_and_nothing_that_was_not_needed(lab, finished):
    assert sorted(file.name for file in (lab / 'experiments' / 'results').iterdir()) == ['counts', 'scenes.jsonl']
    records = [json.loads(line) for line in records_file(lab).read_text().splitlines()]
    assert [(found['system'], found['seed']) for found in records] == [(n, 3) for n in ('dt', 'r2s', 'rass', 'scr')]


def test_record_says_what_was_run_and_what_came_out(lab, finished):
    found = record(lab, 'rass')
    assert found['seed'] == 3 and found['steps'] == 4 and found['seconds'] > 0 and found['recipe_version'] == 1
    described = lab / 'work_dirs' / 'experiments' / 'scenes' / 'rass-seed3' / 'test-degraded' / 'metrics.json'
    assert json.loads(described.read_text())['recipe_version'] == {'tested': 1, 'train_pipeline': 1}
    assert [step for step, _ in found['curve']] == [1, 2, 3, 4]
    assert (
        'model.backbone.scr_adapter=work_dirs/experiments/scenes/scr-seed3/scr_adapter.safetensors' in found['options']
    )
    for split in ('degraded', 'clean'):
        tested = found['tests'][split]
        present = list(tested['IoU'].values())
        assert sum(present) / len(present) == pytest.approx(tested['mIoU'], abs=0.02)
        assert len(tested['images']) == 4
    restored = record(lab, 'scr')['tests']
    assert {'PSNR', 'SSIM', 'input_PSNR', 'attention_ratio', 'attention_chance'} <= restored['restore'].keys()
    assert restored['ceiling']['PSNR'] != restored['restore']['PSNR']


def test_counts_beside_a_record_are_those_of_the_label_maps(lab, finished):
    """Pixel by pixel, in the images that the record names, and with the record's scores."""
    folder = lab / 'experiments' / 'results' / 'counts' / 'scenes'
    assert len(list(folder.iterdir())) == 3 * 2, 'two tests of each segmentor, none of the restorer'
    for split in ('degraded', 'clean'):
        tested = record(lab, 'rass')['tests'][split]
        data = (folder / f'rass-3-{split}.npz').read_bytes()
        assert tested['counts'] == hashlib.sha256(data).hexdigest()
        counts = np.load(io.BytesIO(data))
        assert counts['names'].tolist() == list(tested['images'])
        for number, name in enumerate(tested['images']):
            places = (
                lab / f'work_dirs/experiments/scenes/rass-seed3/predicted-{split}/{name}.png',
                lab / f'data/experiments/scenes/ann_dir/val/{name}.png',
            )
            predicted, truth = (cv2.imread(str(place), cv2.IMREAD_UNCHANGED) for place in places)
            for k in range(12):
                known = [np.sum((predicted == k) & (truth == k)), np.sum(predicted == k), np.sum(truth == k)]
                assert [counts[part][number, k] for part in ('intersection', 'prediction', 'truth')] == known
        i, p, t = (counts[part].sum(0) for part in ('intersection', 'prediction', 'truth'))
        seen = p + t > 0
        assert 100 * np.mean(i[seen] / (p + t - i)[seen]) == pytest.approx(tested['mIoU'], abs=0.01)


def test_record_names_base_and_its_seed(lab, finished, tiny_base):
    bases = {name: (record(lab, name)['base'], record(lab, name)['base_seed']) for name in ('dt', 'scr', 'rass', 'r2s')}
    assert bases['dt'] == (None, None)
    assert bases['scr'] == bases['rass'] == bases['r2s'] == (read_base(tiny_base).identity['weights'], 5)


def test_recorded_commands_do_it_again(lab, finished):
    command = shlex.split(record(lab, 'dt')['commands'][1])
    assert command[0] == 'python' and command[1] == 'tools/test.py'
    metrics = lab / 'work_dirs' / 'experiments' / 'scenes' / 'dt-seed3' / 'test-degraded' / 'metrics.json'
    metrics.unlink()
    again = warm(*command[1:], cwd=lab, env={'PYTHONPATH': str(lab)})
    assert again.returncode == 0, again.stderr
    assert json.loads(metrics.read_text())['metrics']['mIoU'] == record(lab, 'dt')['tests']['degraded']['mIoU']


def test_r2s_tests_the_checkpoint_of_dt_behind_the_restorer(lab, finished):
    commands = record(lab, 'r2s')['commands']
    assert len(commands) == 2 and all('dt-seed3/iter_4.pth' in c and 'scr-seed3/scr_adapter' in c for c in commands)


def test_nothing_is_run_twice(lab, finished):
    time = records_file(lab).stat().st_mtime_ns
    done = experiments(lab, 'run', 'scenes', '--systems', 'r2s', 'rass', '--seeds', '3')
    assert done.returncode == 0 and '0 runs to do, 4 recorded before' in done.stderr + done.stdout
    assert time == records_file(lab).stat().st_mtime_ns


@pytest.mark.slow
def test_row_is_run_again_in_a_fresh_clone_and_compared(lab, finished):
    """With records but no work folders, the systems a row needs are trained, but neither tested nor recorded again."""
    work, time = lab / 'work_dirs' / 'experiments' / 'scenes', records_file(lab).stat().st_mtime_ns
    for name in ('scr', 'rass'):
        shutil.rmtree(work / f'{name}-seed3')
    done = experiments(lab, 'run', 'scenes', '--systems', 'rass', '--seeds', '3', '--again')
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / 'scr-seed3' / 'scr_adapter.safetensors').is_file()
    assert not (work / 'scr-seed3' / 'test-restore').exists()
    assert time == records_file(lab).stat().st_mtime_ns
    again = json.loads((work / 'rass-seed3' / 'again.json').read_text())
    assert again['tests'] == record(lab, 'rass')['tests'] and again['loss'] == record(lab, 'rass')['loss']
    assert 'rass seed 3 again: degraded mIoU' in ' '.join((done.stdout + done.stderr).split())


def test_again_asks_for_names(lab):
    done = experiments(lab, 'run', 'scenes', '--again')
    assert done.returncode == 1 and '--again requires --systems' in done.stderr


def test_changed_config_is_not_mixed_with_old_records(lab, finished):
    file = lab / 'experiments' / 'configs' / 'scenes' / 'base.py'
    before = file.read_text()
    file.write_text(before.replace('backbone=dict(', 'backbone=dict(timestep=7, '))
    try:
        done = experiments(lab, 'run', 'scenes', '--systems', 'rass', '--seeds', '3')
    finally:
        file.write_text(before)
    said = 'results/scenes.jsonl:3 (rass, seed 3) was made with other config values'
    assert done.returncode == 1 and said in done.stderr


def test_failed_run_is_named_and_does_not_stop_the_others(lab, finished):
    before = record(lab, 'dt')
    records = without_record(lab, 'scr', 'dt', 'r2s')
    adapter = lab / 'work_dirs' / 'experiments' / 'scenes' / 'scr-seed3' / 'iter_3.pth'
    whole = adapter.read_bytes()
    adapter.write_bytes(whole[: len(whole) // 2])
    done = experiments(lab, 'run', 'scenes', '--systems', 'r2s', '--seeds', '3', '--workers', '1')
    adapter.write_bytes(whole)
    after = record(lab, 'dt')
    records_file(lab).write_text(records)
    assert done.returncode == 1
    assert 'scenes scr seed 3: python tools/test.py' in done.stderr
    assert 'scenes r2s seed 3: it needs scenes scr seed 3' in done.stderr
    assert after['tests'] == before['tests']


def test_unknown_names_are_listed(lab):
    done = experiments(lab, 'run', 'scenes', '--systems', 'rss')
    assert done.returncode == 1 and "No system 'rss' on scenes. There are: dt, ft" in done.stderr
