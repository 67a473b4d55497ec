"""Rows with overrides, the files of their records, and carrying records over to other configs."""

import argparse
import hashlib
import json
import os
import subprocess
import sys

import pytest
from commands import ROOT
from mmengine.config import DictAction

from experiments import record, store
from experiments.commands import Run
from experiments.migrate_records import migrate
from experiments.run import plan_runs
from experiments.systems import CAMVID_FOLDS, SETTINGS, SYSTEMS
from rass_mm.config import load_config
from rass_mm.errors import DataError

KNOWN = {system.name: system for system in SYSTEMS}


def parsed(options):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def value_at(config, key):
    """The value at a dotted key, list indices included."""
    for part in key.split('.'):
        config = config[int(part)] if isinstance(config, list) else config[part]
    return config


NEW = {'model.backbone.train_parameters', 'model.backbone.norm_cfg.num_groups', 'model.prompt.tagger.type'}
NEW_OF = {'ft_from_dt': {'model.init_cfg.type', 'model.init_cfg.checkpoint'}} | {
    f'{name}_{count}': {'train_dataloader.dataset.ann_file'}
    for name in ('ft', 'base', 'scr', 'rass')
    for count in (25, 100)
}
"""Keys that the configs lack and a row adds, by system; those of `NEW` may be added by all."""


@pytest.mark.parametrize('setting', SETTINGS)
def test_overrides_of_every_row_arrive(setting, monkeypatch):
    """As typed, in the config they are typed for, and at keys that the config has."""
    monkeypatch.chdir(ROOT)
    changed = placed = 0
    for run in plan_runs([setting], [1]):
        typed = parsed(run.options)
        assert repr(typed) == repr(run.overrides), run.label
        before, after = load_config(run.config), load_config(run.config, typed)
        for key, value in run.overrides.items():
            assert repr(value_at(after.to_dict(), key)) == repr(value), (run.label, key)
            if key not in NEW | NEW_OF.get(run.system.name, set()):
                value_at(before, key)  # a mistyped key raises here
        if run.system.overrides:
            assert after.to_dict() != load_config(run.config, {'randomness.seed': 1}).to_dict(), run.label
            changed += 1
        if setting in CAMVID_FOLDS:
            roots = {after[f'{part}_dataloader'].dataset.data_root for part in ('train', 'val', 'test')}
            assert roots == {f'data/experiments/{setting}'}, run.label
            placed += 1
    if setting in CAMVID_FOLDS:  # the rows of a fold differ in data and base only
        assert (changed, placed) == (0, 6)
    else:
        assert changed > 15


def test_rows_differ_from_their_base_as_they_say(monkeypatch):
    monkeypatch.chdir(ROOT)
    long = Run('camvid', KNOWN['rass_long'], 0).resolved()
    assert long.param_scheduler[1].end == long.train_cfg.max_iters == 3600 and long.train_cfg.val_interval == 600
    assert Run('camvid', KNOWN['rass_short'], 0).resolved().model.backbone.base == ['bases/experiments/camvid-short']
    for name in ('dt_crop', 'ft_crop'):
        crop = Run('camvid', KNOWN[name], 0).resolved()
        sizes = [step.crop_size for step in crop.train_dataloader.dataset.pipeline if step.type == 'RandomCrop']
        assert sizes == [(128, 128)] and crop.model.data_preprocessor.size == (128, 128)
    for name in ('dt_photo', 'ft_photo', 'base_photo', 'rass_photo'):
        steps = [s.type for s in Run('camvid', KNOWN[name], 0).resolved().train_dataloader.dataset.pipeline]
        assert steps[steps.index('RandomFlip') + 1] == 'PhotoMetricDistortion'


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty folder of records beside the checkout's configs."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(store, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(store, 'BASES', tmp_path / 'results' / 'bases.json')
    monkeypatch.setattr(store, 'WORK', tmp_path / 'work')
    return tmp_path / 'results'


def made_up(system, seed, **more):
    return {'setting': 'scenes', 'system': system, 'seed': seed, 'recipe_version': 1, **more}


def test_records_are_sorted_and_replaced(results):
    store.add_records('scenes', [made_up('rass', 1), made_up('dt', 2), made_up('rass', 0, loss=3)])
    store.add_records('scenes', [made_up('rass', 0, loss=4), made_up('base', 0)])
    found = [(r['system'], r['seed'], r.get('loss')) for r in store.read_records('scenes')]
    assert found == [('base', 0, None), ('dt', 2, None), ('rass', 0, 4), ('rass', 1, None)]
    assert [file.name for file in results.iterdir()] == ['scenes.jsonl']
    assert store.line_of(Run('scenes', KNOWN['rass'], 1)).endswith('scenes.jsonl:4')


def test_damaged_line_is_named(results):
    store.add_records('scenes', [made_up('dt', 0), made_up('ft', 0)])
    file = store.records_file('scenes')
    file.write_text(file.read_text()[:-10])
    with pytest.raises(DataError, match=r'scenes.jsonl:2 is not valid JSON'):
        store.read_records('scenes')


ADD = """
import sys
from experiments.store import add_records
for seed in range(30):
    record = {'setting': 'scenes', 'system': sys.argv[1], 'seed': seed, 'recipe_version': 1, 'loss': [0.1] * 1000}
    add_records('scenes', [record])
"""


@pytest.mark.slow
def test_two_processes_lose_no_record(tmp_path):
    adding = [
        subprocess.Popen([sys.executable, '-W', 'ignore', '-c', ADD, name], cwd=tmp_path, env=environment())
        for name in ('dt', 'ft')
    ]
    assert [process.wait() for process in adding] == [0, 0]
    lines = (tmp_path / 'experiments' / 'results' / 'scenes.jsonl').read_text().splitlines()
    found = [(r['system'], r['seed']) for r in map(json.loads, lines)]
    assert found == [(name, seed) for name in ('dt', 'ft') for seed in range(30)]


def environment():
    return {**os.environ, 'PYTHONPATH': str(ROOT)}


@pytest.fixture
def old(tmp_path):
    """A checkout in which FT of 3600 steps has a config of its own and its record a file of its own."""
    config = tmp_path / 'old' / 'experiments' / 'configs' / 'scenes' / 'ft_long.py'
    config.parent.mkdir(parents=True)
    config.write_text(f"""
_base_ = ['{ROOT}/experiments/configs/scenes/ft.py']
train_cfg = dict(max_iters=3600, val_interval=600)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], end=3600)]
max_iters = 3600
""")
    write_old(tmp_path / 'old', config, hash_by_hand(config))
    return tmp_path / 'old'


def hash_by_hand(config):
    """Of the text of the config in which no degradation step names its version."""
    loaded = load_config(config)
    for pipeline in (loaded.train_pipeline, loaded.train_dataloader.dataset.pipeline):
        (step,) = [step for step in pipeline if step.type == 'LQDegradation']
        step.pop('recipe', None)
    return hashlib.sha256(loaded.pretty_text.encode()).hexdigest()[:16]


def write_old(old, config, known):
    results = old / 'experiments' / 'results' / 'scenes'
    results.mkdir(parents=True, exist_ok=True)
    found = made_up('ft_long', 1, config=config.relative_to(old).as_posix(), config_hash=known)
    found |= {'options': ['randomness.seed=1'], 'commands': ['as it was'], 'loss': [[10, 0.5]]}
    (results / 'ft_long-seed1.json').write_text(json.dumps(found))
    (results / 'bases.json').write_text(json.dumps({'scenes': {'loss': 0.25}}))


def test_record_of_equal_values_is_carried_over(results, old):
    migrate(old)
    run = Run('scenes', KNOWN['ft_long'], 1)
    (found,) = store.read_records('scenes')
    assert record.is_recorded(run) and found['loss'] == [[10, 0.5]]
    assert found['config'].endswith('scenes/ft.py') and 'max_iters=3600' in found['options']
    assert found['commands'] == run.commands
    first = {'config': 'experiments/configs/scenes/ft_long.py', 'config_hash': hash_by_hand(old / found_config(old))}
    assert found['as_run'] == first
    assert store.read_bases() == {'scenes': {'scenes': {'loss': 0.25}}}


def found_config(old):
    return json.loads((old / 'experiments/results/scenes/ft_long-seed1.json').read_text())['config']


def test_record_is_not_carried_over_to_other_values(results, old):
    config = old / found_config(old)
    config.write_text(config.read_text().replace('val_interval=600', 'val_interval=601'))
    with pytest.raises(DataError, match='ft_long seed 1: its hash is'):
        migrate(old)
    write_old(old, config, hash_by_hand(config))
    with pytest.raises(DataError, match='ft_long seed 1: its row has other values now for train_cfg.val_interval'):
        migrate(old)
    assert not store.records_file('scenes').exists()
    migrate(old, ['train_cfg.val_interval'])
    assert store.read_records('scenes')[0]['as_run']['ignored'] == ['train_cfg.val_interval']


def test_records_of_a_file_are_carried_over_again(results, old, tmp_path, monkeypatch):
    """A later checkout has JSON lines; the first config and hash of the run stay in the record."""
    migrate(old)
    whole = store.records_file('scenes').read_text()
    later = tmp_path / 'later' / 'experiments'
    (later / 'results').mkdir(parents=True)
    (later / 'configs').symlink_to(ROOT / 'experiments' / 'configs')
    (tmp_path / 'later' / 'configs').symlink_to(ROOT / 'configs')
    (later / 'results' / 'scenes.jsonl').write_text(whole)
    store.records_file('scenes').unlink()
    migrate(tmp_path / 'later')
    assert store.records_file('scenes').read_text() == whole
    (later / 'results' / 'scenes.jsonl').write_text(whole.replace('"config_hash": "', '"config_hash": "0', 1))
    with pytest.raises(DataError, match='its hash is 0'):
        migrate(tmp_path / 'later')
