"""Preparation, judging of bases and picture pages, on small made-up inputs."""

import json
import math
import shutil
import threading

import cv2
import numpy as np
import pytest
import torch
from commands import ROOT

from experiments import judge_base, pages, prepare, record, results, store
from experiments.commands import Run
from experiments.locks import locked
from experiments.run import _Queue, plan_runs
from experiments.systems import SETTINGS, recipe_version, systems_of
from rass_mm.config import load_config
from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.demo.base.images import BaseImages
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_vae
from rass_mm.errors import DataError


@pytest.fixture
def camvid(tmp_path):
    """One image and label per split at full size; the label has one class per 2x2 block of pixels."""
    blocks = np.random.default_rng(0).integers(0, 11, (180, 240), dtype=np.uint8)
    for split in ('train', 'val'):
        for kind, picture, name in (
            ('img_dir', np.full((360, 480, 3), 90, np.uint8), 'a.jpg'),
            ('ann_dir', blocks.repeat(2, 0).repeat(2, 1), 'a.png'),
        ):
            (tmp_path / 'full' / kind / split).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / 'full' / kind / split / name), picture)
    return tmp_path / 'full', blocks


def test_halved_labels_are_the_blocks_and_images_their_means(camvid, tmp_path):
    full, blocks = camvid
    prepare.halve(full, tmp_path / 'half')
    label = cv2.imread(str(tmp_path / 'half' / 'ann_dir' / 'val' / 'a.png'), cv2.IMREAD_UNCHANGED)
    image = cv2.imread(str(tmp_path / 'half' / 'img_dir' / 'train' / 'a.png'))
    assert np.array_equal(label, blocks)
    assert image.shape == (180, 240, 3) and abs(int(image.mean()) - 90) <= 1


def test_damaged_or_missing_camvid_is_named(camvid, tmp_path):
    full, _ = camvid
    (full / 'img_dir' / 'val' / 'a.jpg').write_bytes(b'\xff\xd8\xff')
    with pytest.raises(DataError, match='val/a.jpg is damaged'):
        prepare.halve(full, tmp_path / 'half')
    with pytest.raises(DataError, match='contains no'):
        prepare.halve(tmp_path / 'nowhere', tmp_path / 'half')


def test_bases_come_after_those_they_start_from():
    for setting in ('scenes', 'camvid'):
        made = set()
        for name, options in prepare.bases(setting).items():
            if '--start' in options:
                assert options[options.index('--start') + 1] in {str(prepare.BASES / other) for other in made}
            made.add(name)


def test_random_base_is_no_prior(tiny_base, tmp_path):
    """Its attention is at chance, its noise loss that of a guess, and its words are worth nothing."""
    base = shutil.copytree(tiny_base, tmp_path / 'base')
    (base / 'training.json').write_text(json.dumps({'recipe': {'vae_steps': 0, 'unet_steps': 0}}))
    images = torch.randint(0, 256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.zeros(4, 64, 64, dtype=torch.uint8)
    labels[:, 32:] = torch.tensor([1, 2, 3, 4], dtype=torch.uint8).view(4, 1, 1)
    found = judge_base.judge(read_base(base), BaseImages(images, labels, tuple(SCENE_CLASSES)))
    assert found['loss'] == pytest.approx(1, abs=0.3)
    assert found['loss_wrong'] == pytest.approx(found['loss'], rel=0.02)
    assert found['attention_ratio'] == pytest.approx(found['attention_chance'], abs=0.02)
    assert found['attention_chance'] == pytest.approx(0.5, abs=0.01)
    vae = load_vae(read_base(base), decoder=True)
    with torch.no_grad():
        pictures = images.double() / 127.5 - 1
        again = vae.decode(vae.encode(pictures.float()).latent_dist.mode()).sample.clamp(-1, 1).double()
    by_hand = -10 * math.log10(((again - pictures) / 2).square().mean())
    assert found['autoencoder_PSNR_RGB'] == pytest.approx(by_hand, abs=0.02)


def test_pages_show_the_best_median_and_worst_gain(tmp_path, monkeypatch, scenes):
    (tmp_path / 'data' / 'experiments').mkdir(parents=True)
    (tmp_path / 'data' / 'experiments' / 'scenes').symlink_to(scenes)
    for name in ('experiments', 'configs'):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    names = sorted(file.stem for file in (scenes / 'ann_dir' / 'val').glob('*.png'))
    gains = [3.0, -2.0, 0.5, 9.0]
    runs = {system.name: Run('scenes', system, 0) for system in systems_of('scenes')}
    for system in ('ft', 'base', 'rass', 'scr'):
        run = runs[system]
        score = {n: 10.0 + (g if system == 'rass' else 0) for n, g in zip(names, gains, strict=True)}
        store.add_records('scenes', [{**made_up(run), 'tests': {'degraded': {'images': score}}}])
        for test, shape in (('degraded', (96, 96)), ('restore', (96, 96, 3))):
            run.predictions(test).mkdir(parents=True)
            for name in names:
                cv2.imwrite(str(run.predictions(test) / f'{name}.png'), np.zeros(shape, np.uint8))
    monkeypatch.setattr(pages, 'EACH', 1)
    assert pages.chosen(runs['rass'], runs['base']) == [(names[3], 9.0), (names[0], 3.0), (names[1], -2.0)]
    config = scene_config(scenes)
    monkeypatch.setattr(Run, 'resolved', lambda _run: config)
    pages.write_pages('scenes')
    page = cv2.imread(str(tmp_path / 'docs' / 'evidence' / 'scenes' / 'gains.png'))
    assert page.shape[1] == 6 * (2 * 96 + 6) and page.shape[0] > 3 * 2 * 96
    (runs['ft'].predictions('degraded') / f'{names[3]}.png').unlink()
    with pytest.raises(DataError, match=f'{names[3]}.png is missing'):
        pages.write_pages('scenes')


def made_up(run):
    return {'setting': run.setting, 'system': run.system.name, 'seed': run.seed, 'recipe_version': 1}


def scene_config(scenes):
    return load_config('baselines/resnet_scenes_tiny.py', {'test_dataloader.dataset.data_root': str(scenes)})


def test_second_worker_waits_for_the_first(tmp_path):
    order = []

    def second():
        with locked(tmp_path / 'run'):
            order.append('second')

    with locked(tmp_path / 'run'):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.3)
        order.append('first')
    thread.join(10)
    assert order == ['first', 'second']


def test_what_another_process_works_on_comes_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no records and no work folders
    dt, ft = plan_runs(['scenes'], [0], ['dt', 'ft'])
    with locked(dt.folder):
        queue = _Queue([dt, ft])
        assert [queue.take(), queue.take()] == [ft, dt]
    assert _Queue([dt, ft]).take() == dt


@pytest.mark.parametrize('setting', ['scenes', 'camvid'])
def test_configs_and_records_of_the_first_settings_belong_to_version_1(setting, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert recipe_version(setting) == 1 and recipe_version('scenes2') == recipe_version('camvid_fold0') == 2
    records = [json.loads(line) for line in store.records_file(setting).read_text().splitlines()]
    assert len(records) > 50 and {found['recipe_version'] for found in records} == {1}
    versions = {
        name: {step_version(step) for step in lq_steps(Run(setting, system, 0).resolved().train_dataloader)}
        for name, system in ((system.name, system) for system in systems_of(setting))
    }
    clean = {name for name, found in versions.items() if not found}
    assert clean == {name for name in versions if name.split('_')[0] in ('dt', 'r2s') or name == 'rass_clean'}
    assert all(versions[name] == {1} for name in versions.keys() - clean)


def test_hash_of_a_config_knows_its_version(monkeypatch):
    """Version 1 has the recorded hash; version 2, stated or by default, does not."""
    monkeypatch.chdir(ROOT)
    run = plan_runs(['scenes'], [0], ['ft'])[0]
    known = store.find_record(run)['config_hash']
    assert record.config_hash(run.resolved()) == known
    hashes = []
    for recipe in ({'version': 2}, None, {'version': 1, 'final_sinc_prob': 0.5}):
        config = run.resolved()
        for step in lq_steps(list(config.values())):
            step['recipe'] = recipe
        hashes.append(record.config_hash(config))
    assert hashes[0] == hashes[1] and len({known, *hashes}) == 3


@pytest.mark.parametrize('setting', SETTINGS)
def test_every_record_has_the_hash_of_its_row(setting, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = plan_runs([setting], [0, 1, 2])
    records = {(found['system'], found['seed']): found for found in store.read_records(setting)}
    assert records.keys() <= {run.key for run in runs}
    for run in runs:
        if run.key in records:
            assert records[run.key]['config_hash'] == record.config_hash(run.resolved()), run.label
            assert records[run.key]['commands'] == run.commands, run.label


def test_prepared_data_are_of_version_1(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(prepare, '_command', lambda *arguments: commands.append(arguments))
    prepare.prepare('scenes', tmp_path)
    (made,) = [arguments for arguments in commands if arguments[0] == 'make-lq']
    assert made[-2:] == ('--recipe-version', '1')


@pytest.mark.parametrize('version', [2, None])
def test_records_of_another_version_are_not_mixed_in(tmp_path, monkeypatch, version):
    monkeypatch.chdir(ROOT)
    run = plan_runs(['scenes'], [0], ['ft'])[0]
    found = {**made_up(run), 'config_hash': record.config_hash(run.resolved()), 'recipe_version': version}
    monkeypatch.setattr(store, 'RESULTS', tmp_path)
    store.records_file('scenes').write_text(json.dumps(found) + '\n')
    for read in (lambda: record.is_recorded(run), lambda: results.read_rows('scenes')):
        with pytest.raises(
            DataError, match=rf'scenes.jsonl:1 \(ft, seed 0\) .* recipe version {version or "None"}.*version 1'
        ):
            read()
    store.records_file('scenes').write_text(json.dumps({**found, 'recipe_version': 1}) + '\n')
    assert record.is_recorded(run) and len(results.read_rows('scenes')) == 1


def test_a_test_on_data_of_another_version_is_not_recorded(tmp_path, monkeypatch):
    run = plan_runs(['scenes'], [0], ['scr'])[0]
    monkeypatch.chdir(tmp_path)
    run.outcome('restore').mkdir(parents=True)
    described = run.outcome('restore') / 'metrics.json'
    for tested, train in ((2, 1), (1, 2), (None, 2)):
        versions = {'tested': tested, 'train_pipeline': train}
        described.write_text(json.dumps({'metrics': {'PSNR': 20.0}, 'recipe_version': versions}))
        with pytest.raises(DataError, match='the restore test has recipe versions .* scenes belongs to version 1'):
            record._tested(run, 'restore', None)
    described.write_text(json.dumps({'metrics': {'PSNR': 20.0}, 'recipe_version': {**versions, 'train_pipeline': 1}}))
    assert record._tested(run, 'restore', None)['PSNR'] == 20.0
