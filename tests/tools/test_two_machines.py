"""Training on two machines: two runs of tools/dist_train.sh with folders of their own, compared with one process."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch
from commands import ROOT, environment_of

from rass_mm.config import config_path

UPDATES = 8
CONFIG = """
_base_ = ['{base}']
model = dict(backbone=dict(base='{folder}'), decode_head=dict(dropout_ratio=0.0))
train_dataloader = dict(batch_size=4, dataset=dict(data_root='{scenes}'))
val_dataloader = None
val_evaluator = None
val_cfg = None
train_cfg = dict(max_iters={updates})
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01, momentum=0.9))
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end={updates}, by_epoch=False)]
default_hooks = dict(checkpoint=dict(interval=2, save_best=None), logger=dict(interval=1))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def config(tmp_path_factory, tiny_base, scenes):
    """Config of a short training of batches of 4, without the random numbers of dropout.

    Adam would make rounding errors of very small gradients as large as the learning rate.
    """
    file = tmp_path_factory.mktemp('config') / 'short.py'
    values = {'base': config_path('rass/rass_scenes_tiny.py'), 'folder': tiny_base, 'scenes': scenes}
    file.write_text(CONFIG.format(**values, updates=UPDATES))
    return file


class Machine:
    """A machine of a training: a folder, and a run of tools/dist_train.sh with one process in it."""

    started = []

    def __init__(self, folder, config, number, port, *options, nodes='2', **variables):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ['bash', ROOT / 'tools' / 'dist_train.sh', config, '1', '--work-dir', 'work', *options]
        env = {'NNODES': nodes, 'NODE_RANK': str(number), 'PORT': str(port), 'PYTHON': sys.executable, **variables}
        self.log = folder / f'log{len(list(folder.glob("log*")))}'
        with self.log.open('w') as log:
            self.process = subprocess.Popen(
                [*map(str, command)], cwd=folder, env=environment_of(env), stdout=log, stderr=log
            )
        self.started.append(self)

    def listens(self, port, seconds=120):
        """Waits until a process accepts connections."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(('127.0.0.1', port)) == 0:
                    return
            time.sleep(0.2)
        raise AssertionError(self.log.read_text()[-3000:])

    def end(self, seconds=240):
        """Waits for the end; returns the exit status and the output."""
        status = self.process.wait(seconds)
        return status, self.log.read_text()

    def kill(self):
        """Kills all processes of the machine at once."""
        processes = [self.process.pid, *descendants(self.process.pid)]
        for process in processes:
            os.kill(process, signal.SIGKILL)
        self.process.wait()

    def freeze(self):
        """Stops the training process without ending it, as a machine whose network is gone."""
        for process in descendants(self.process.pid):
            os.kill(process, signal.SIGSTOP)

    def reaches(self, name, seconds=240):
        """Waits for a file in the work folder."""
        end = time.monotonic() + seconds
        while not (self.folder / 'work' / name).exists():
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()[-3000:]
            time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_machine_is_left():
    """Ends the machines of a test that failed, whose ports the next test may need."""
    yield
    while Machine.started:
        machine = Machine.started.pop()
        if machine.process.poll() is None:
            machine.kill()


def descendants(process):
    """Ids of the processes that a process started, and of those that these started."""
    parents = {}
    for entry in Path('/proc').iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / 'stat').read_text().rpartition(')')[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = parents.get(process, [])
    return [*found, *(below for child in found for below in descendants(child))]


def both(folder, config, port, *options, **variables):
    return [Machine(folder / f'machine{number}', config, number, port, *options, **variables) for number in range(2)]


def weights(work, updates=UPDATES):
    return torch.load(work / f'iter_{updates}.pth', weights_only=False)['state_dict']


def difference(one, other):
    values = {key: value for key, value in one.items() if isinstance(value, torch.Tensor)}
    assert values.keys() <= other.keys() and len(values) > 10
    return max((value - other[key]).abs().max().item() for key, value in values.items())


def losses(work):
    rows = [json.loads(line) for file in sorted(work.glob('*/vis_data/scalars.json')) for line in file.open()]
    return {row['step']: row['loss'] for row in rows}


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory):
    """Work folder of the training in one process without torchrun."""
    folder = tmp_path_factory.mktemp('alone')
    command = [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir', folder]
    subprocess.run([*map(str, command)], env=environment_of(), check=True, capture_output=True, timeout=600)
    return folder


@pytest.fixture(scope='module')
def together(config, tmp_path_factory):
    """The two machines' folder after a training without a failure, each with batches of 2."""
    folder = tmp_path_factory.mktemp('together')
    for machine in both(folder, config, 29611, '--cfg-options', 'train_dataloader.batch_size=2'):
        status, log = machine.end()
        assert status == 0, log[-3000:]
    return folder


def test_two_machines_train_as_one_process_with_the_same_batch(alone, together):
    one, two = losses(alone), losses(together / 'machine0' / 'work')
    assert one.keys() == two.keys() == set(range(1, UPDATES + 1))
    print('first losses', one[1], two[1])
    assert two[1] == pytest.approx(one[1], abs=1e-5)
    far = difference(weights(alone), weights(together / 'machine0' / 'work'))
    print('largest difference of the weights', far)
    assert far < 1e-4


def test_only_the_first_process_writes_checkpoints(together):
    assert len(list((together / 'machine0' / 'work').glob('*.pth'))) == 3
    assert not list((together / 'machine1').rglob('*.pth'))
    assert not list((together / 'machine1').rglob('scalars.json'))


@pytest.mark.parametrize('victim', [0, 1])
def test_a_killed_machine_ends_the_other_and_both_resume(config, together, tmp_path, victim):
    options = ('--cfg-options', 'train_dataloader.batch_size=2')
    machines = both(tmp_path, config, 29621 + victim, *options)
    machines[0].reaches('iter_4.pth')
    machines[victim].kill()
    began = time.monotonic()
    status, log = machines[1 - victim].end(60)
    print('the other machine ended after', time.monotonic() - began, 's')
    assert status != 0 and 'Another process of this training has ended' in log and '--resume' in log
    for machine in both(tmp_path, config, 29631 + victim, '--resume', *options):
        status, log = machine.end()
        assert status == 0, log[-3000:]
    work = tmp_path / 'machine0' / 'work'
    assert losses(work).keys() == set(range(1, UPDATES + 1))
    assert difference(weights(together / 'machine0' / 'work'), weights(work)) == 0
    received = list((tmp_path / 'machine1' / 'work' / 'resumed').iterdir())
    assert [file.read_bytes() for file in received] == [(work / received[0].name).read_bytes()]


def test_a_machine_without_data_ends_the_other_before_training(config, tmp_path):
    missing = ('--cfg-options', 'train_dataloader.dataset.data_root=/nowhere')
    machines = [
        Machine(tmp_path / f'machine{number}', config, number, 29691, *options)
        for number, options in enumerate(((), missing))
    ]
    status, log = machines[1].end()
    assert status != 0 and '/nowhere' in log
    status, log = machines[0].end()
    assert status != 0 and 'Another process of this training has ended' in log and 'Correct the setting' not in log


def test_a_machine_that_does_not_answer_is_an_error_after_the_timeout(config, tmp_path):
    machines = both(tmp_path, config, 29641, '--cfg-options', 'env_cfg.dist_cfg.timeout=15')
    machines[0].reaches('iter_2.pth')
    machines[1].freeze()
    began = time.monotonic()
    try:
        status, log = machines[0].end(60)
    finally:
        machines[1].kill()
    print('ended after', time.monotonic() - began, 's')
    assert status != 0 and 'has not answered in time' in log


def test_a_killed_machine_is_left_out_if_the_number_may_change(config, together, tmp_path):
    """The machines share their work folder, as on a cluster."""
    shared = tmp_path / 'shared'
    options = ('--work-dir', shared, '--resume', '--cfg-options', 'train_dataloader.batch_size=2')
    variables = {'nodes': '1:2', 'LOCAL_ADDR': '127.0.0.1'}
    arguments = (config, 0, 29651, *options, 'train_cfg.global_batch_size=4')
    stays = Machine(tmp_path / 'machine0', *arguments, **variables)
    stays.listens(29651)  # both have one address here, so the first one hosts the rendezvous, which must stay
    leaves = Machine(tmp_path / 'machine1', *arguments, **variables)
    end = time.monotonic() + 240
    while not (shared / 'iter_4.pth').exists():
        assert time.monotonic() < end, stays.log.read_text()[-3000:]
        time.sleep(0.02)
    leaves.kill()
    began = time.monotonic()
    status, log = stays.end(300)
    assert status == 0, log[-3000:]
    assert 'each update uses 2 batches of 2 images in each of 1 process.' in log
    print('the other machine ended after', time.monotonic() - began, 's')
    far = difference(weights(together / 'machine0' / 'work'), weights(shared))
    print('largest difference of the weights', far)
    assert far < 1e-4


def test_one_machine_with_accumulation_replaces_two(config, together, tmp_path):
    options = ('--cfg-options', 'train_dataloader.batch_size=2')
    machines = both(tmp_path, config, 29661, *options)
    machines[0].reaches('iter_4.pth')
    machines[1].kill()
    machines[0].end(60)
    again = Machine(
        *(tmp_path / 'machine0', config, 0, 29662, '--resume', *options, 'train_cfg.global_batch_size=4'), nodes='1'
    )
    status, log = again.end()
    assert status == 0, log[-3000:]
    far = difference(weights(together / 'machine0' / 'work'), weights(tmp_path / 'machine0' / 'work'))
    print('largest difference of the weights', far)
    assert far < 1e-4


def test_two_machines_with_unequal_labels_train_as_one_process(config, scenes, tmp_path):
    """Each image has another number of labelled pixels."""
    shutil.copytree(scenes, tmp_path / 'scenes')
    for number, file in enumerate(sorted((tmp_path / 'scenes' / 'ann_dir' / 'train').iterdir())):
        labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        labels[: 5 * number] = 255
        cv2.imwrite(str(file), labels)
    options = ('--cfg-options', f'train_dataloader.dataset.data_root={tmp_path / "scenes"}')
    command = [sys.executable, ROOT / 'tools' / 'train.py', config, '--work-dir', tmp_path / 'alone', *options]
    subprocess.run([*map(str, command)], env=environment_of(), check=True, capture_output=True, timeout=600)
    distances = {}
    for port, given in ((29681, ['train_cfg.global_batch_size=4']), (29682, [])):
        folder = tmp_path / str(port)
        for machine in both(folder, config, port, *options, 'train_dataloader.batch_size=2', *given):
            status, log = machine.end()
            assert status == 0, log[-3000:]
        distances[len(given)] = difference(weights(tmp_path / 'alone'), weights(folder / 'machine0' / 'work'))
    print('largest differences of the weights', distances)
    assert distances[1] < 1e-4 < distances[0]


def test_two_machines_accumulate(config, alone, tmp_path):
    options = ('--cfg-options', 'train_dataloader.batch_size=1', 'train_cfg.global_batch_size=4')
    for machine in both(tmp_path, config, 29671, *options):
        status, log = machine.end()
        assert status == 0, log[-3000:]
    work = tmp_path / 'machine0' / 'work'
    assert losses(work)[1] == pytest.approx(losses(alone)[1], abs=1e-5)
    assert difference(weights(alone), weights(work)) < 1e-4
