"""The demo: its folder, its steps and their order, its costs, its page; end to end in the slow suite."""

import json
import threading

import cv2
import numpy as np
import pytest
from commands import python

from rass_mm.cli import train as train_command
from rass_mm.cli.runner import runner_config
from rass_mm.demo import run as demo_run
from rass_mm.demo.base.shipped import shipped_base, shipped_record
from rass_mm.demo.costs import Costs
from rass_mm.demo.page import Scored, demo_page, extremes, score_scenes
from rass_mm.demo.run import run_demo
from rass_mm.demo.settings import DemoSettings, claim_folder
from rass_mm.demo.steps import BASELINE, LONGER, RASS, RASS_SCR, SCR, checkpoint, training
from rass_mm.errors import ConfigError, RassError
from rass_mm_cli.parser import CommandParser

TINY = DemoSettings(seed=1, restorer_steps=21, segmentor_steps=22, train=8, val=3, longer_steps=23)


def test_a_folder_serves_one_setting(tmp_path):
    claim_folder(tmp_path / 'out', TINY)
    claim_folder(tmp_path / 'out', TINY)
    with pytest.raises(ConfigError, match='seed is 1, not 2.*--out DIR.*rm -r'):
        claim_folder(tmp_path / 'out', DemoSettings(2, 21, 22, 8, 3, 23))
    with pytest.raises(ConfigError, match='base is'):
        claim_folder(tmp_path / 'out', DemoSettings(1, 21, 22, 8, 3, 23, base='other'))


def test_a_folder_of_an_earlier_version_is_refused(tmp_path):
    (tmp_path / 'bases').mkdir()
    with pytest.raises(ConfigError, match='no demo.json.*earlier version.*--out DIR') as caught:
        claim_folder(tmp_path, TINY)
    assert 'rm -r' not in str(caught.value)


@pytest.mark.parametrize('content', ['{', '[]', '{"seed": 1}', '\udcff'])
def test_only_the_folder_of_a_demo_may_be_removed(tmp_path, content):
    """A folder with another program's `demo.json` is refused, and the message proposes no `rm`."""
    (tmp_path / 'demo.json').write_bytes(content.encode('utf-8', 'surrogateescape'))
    with pytest.raises(ConfigError, match='demo.json.*--out DIR') as caught:
        claim_folder(tmp_path, TINY)
    assert 'rm -r' not in str(caught.value)


@pytest.mark.slow
def test_the_command_refuses_a_folder_of_another_seed(tmp_path):
    claim_folder(tmp_path / 'out', DemoSettings(seed=0))
    done = python('-m', 'rass_mm', 'demo', '--out', tmp_path / 'out', '--seed', '1')
    assert done.returncode == 1 and 'seed is 0, not 1' in done.stderr and 'Traceback' not in done.stderr
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['demo.json']


@pytest.mark.parametrize('system', [SCR, BASELINE, LONGER, RASS, RASS_SCR], ids=lambda system: system.stem)
def test_trainings_have_their_steps_seed_and_the_shipped_base(tmp_path, system):
    step = training(tmp_path, TINY, system)[0]
    parsed = train_command.add_arguments(CommandParser()).parse_args(step.arguments[1:])
    config = runner_config(parsed)
    steps = {SCR: 21, LONGER: 23}.get(system, 22)
    assert config.train_cfg.max_iters == config.train_cfg.val_interval == config.param_scheduler[-1].end == steps
    assert config.randomness.seed == 1 and config.work_dir == str(tmp_path / system.stem)
    model = config.model if system is SCR else config.model.backbone
    assert model.get('base') == (None if system in (BASELINE, LONGER) else str(shipped_base()))
    assert bool(model.get('scr_adapter')) == (system is RASS_SCR)


def test_a_finished_training_is_not_started_again(tmp_path):
    file = checkpoint(tmp_path, TINY, RASS)
    file.parent.mkdir()
    file.touch()
    assert training(tmp_path, TINY, RASS) == [] and training(tmp_path, TINY, SCR)


@pytest.fixture
def commands(monkeypatch):
    """Names of the steps that ran, in place of running them; SCR ends after the other lane has run out of work."""
    names, other_lane = [], threading.Event()

    def run(command, log, name):
        if name == "Step 'train scr_scenes_tiny'":
            other_lane.wait(30)
        if name == "Step 'test rass_scenes_tiny clean'":
            other_lane.set()
        names.append(name)
        return 2.6

    monkeypatch.setattr(demo_run, 'run_logged', run)
    monkeypatch.setattr(demo_run, 'demo_table', lambda out, settings: 'table')
    monkeypatch.setattr(demo_run, 'demo_page', lambda out, settings: None)
    return names


def test_what_needs_the_restorer_waits_for_it(commands, tmp_path):
    run_demo(tmp_path / 'out', TINY)
    assert len(commands) == len(set(commands)) == 2 + 5 + 2 + 5 * 2
    first = commands.index("Step 'train scr_scenes_tiny'")
    needing = [name for name in commands if 'scr' in name or 'r2s' in name]
    assert len(needing) == 8 and min(map(commands.index, needing)) == first
    assert Costs(tmp_path / 'out').seconds(RASS_SCR.stem) == 3


def test_a_failed_restorer_stops_what_needs_it(commands, tmp_path, monkeypatch):
    inner = demo_run.run_logged

    def run(command, log, name):
        seconds = inner(command, log, name)
        if 'train scr' in name:
            raise RassError('it failed')
        return seconds

    monkeypatch.setattr(demo_run, 'run_logged', run)
    with pytest.raises(RassError, match='it failed'):
        run_demo(tmp_path / 'out', TINY)
    assert not any('-scr' in name or 'r2s' in name or 'restore' in name for name in commands)


def test_restore_then_segment_waits_for_the_baseline_of_a_resumed_demo(commands, tmp_path, monkeypatch):
    claim_folder(tmp_path / 'out', TINY)
    for system in (SCR, RASS_SCR):
        file = checkpoint(tmp_path / 'out', TINY, system)
        file.parent.mkdir()
        file.touch()
    inner, others = demo_run.run_logged, threading.Event()

    def run(command, log, name):
        if name == "Step 'train resnet_scenes_tiny'":
            others.wait(30)
        if name == "Step 'test rass_scenes_tiny-scr clean'":
            others.set()
        return inner(command, log, name)

    monkeypatch.setattr(demo_run, 'run_logged', run)
    run_demo(tmp_path / 'out', TINY)
    trained = commands.index("Step 'train resnet_scenes_tiny'")
    assert all(commands.index(name) > trained for name in commands if 'r2s' in name)


def test_costs_tell_a_resumed_training(tmp_path):
    for _ in range(2):
        Costs(tmp_path).begin('one')
    costs = Costs(tmp_path)
    costs.begin('two')
    costs.end('one', 10.4)
    costs.end('two', 20.6)
    found = Costs(tmp_path)
    assert [(found.seconds(name), found.resumed(name)) for name in ('one', 'two')] == [(10, True), (21, False)]


def test_rows_of_the_page_follow_the_rule():
    gains = {'a': 0.1, 'b': -0.2, 'c': 0.3, 'd': 0.0}
    found = extremes([Scored(name, 0.5, 0.5 + gain) for name, gain in gains.items()])
    assert {label: scene.name for label, scene in found.items()} == {'best': 'c', 'median': 'd', 'worst': 'b'}


def test_page_and_its_scores(scenes, tmp_path):
    """The ResNet's label maps are all sky, those of RASS are the truth."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'scenes').symlink_to(scenes)
    shares = {}
    for file in (scenes / 'ann_dir' / 'val').glob('*.png'):
        truth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        shares[file.name] = float((truth == 0).sum() / truth.size)
        pictures = {
            f'{BASELINE.stem}-degraded': np.zeros_like(truth),
            f'{RASS_SCR.stem}-degraded': truth,
            f'{SCR.stem}-restore': cv2.imread(str(scenes / 'img_dir' / 'val' / file.name)),
        }
        for name, picture in pictures.items():
            (tmp_path / 'predictions' / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / 'predictions' / name / file.name), picture)
    assert {scene.name: (scene.resnet, scene.rass) for scene in score_scenes(tmp_path)} == {
        name: (share, 1.0) for name, share in shares.items()
    }
    demo_page(tmp_path, TINY)
    assert cv2.imread(str(tmp_path / 'pictures.png')).shape[1] == 943


@pytest.mark.slow
def test_demo_end_to_end(tmp_path):
    """Every command of the demo, at 8 scenes and about 20 steps."""
    run_demo(tmp_path / 'out', TINY)
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert shipped_record()['weights'] in table and 'seed 1' in table and '| 21 + 22 |' in table and ' 23 |' in table
    assert cv2.imread(str(tmp_path / 'out' / 'pictures.png')) is not None
    for system, seed in ((SCR, 1), (RASS_SCR, 1)):
        log = (tmp_path / 'out' / 'logs' / f'train-{system.stem}.log').read_text()
        assert f'seed: {seed}' in log or f"'seed': {seed}" in log or f'seed={seed}' in log
    assert set(json.loads((tmp_path / 'out' / 'costs.json').read_text())) == {
        system.stem for system in (SCR, BASELINE, LONGER, RASS, RASS_SCR)
    }
