"""Runs systems x seeds in parallel, with one thread each, and adds a record for each finished run."""

import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Container, Sequence
from pathlib import Path

import torch

from experiments.commands import Run, typed
from experiments.counts import with_hashes, write_counts
from experiments.locks import is_locked, locked
from experiments.rate_search import search_rate
from experiments.record import is_recorded, make_record, scores_beside
from experiments.store import add_records
from experiments.systems import systems_of
from rass_mm.errors import RassError
from rass_mm.files.atomic import write_bytes, write_text
from rass_mm.files.tensors import read_tensors
from rass_mm.parallel import run_logged

logger = logging.getLogger(__name__)
AGAIN = 'again.json'


def plan_runs(settings: Sequence[str], seeds: Sequence[int], names: list[str] | None = None) -> list[Run]:
    """Returns all runs sorted by seed, so that an interruption leaves complete seeds."""
    return [
        Run(setting, system, seed) for seed in seeds for setting in settings for system in systems_of(setting, names)
    ]


def run_all(runs: Sequence[Run], workers: int, again: Container[str] = ()) -> None:
    """Trains and tests every run without a record, each one only after its dependencies have been recorded.

    An interrupted run resumes from its last checkpoint. A dependency that has a record but no work folder, as in a
    fresh clone, is only trained again, but not tested or recorded.

    Args:
        runs: the runs in order, each after its dependencies.
        workers: number of parallel runs.
        again: names of systems to run even if they are recorded; their records are not changed.

    Raises:
        RassError: some runs failed. The error is raised after all other runs have finished.
    """
    queue = _Queue(runs, again)
    threads = [threading.Thread(target=_work, args=(queue,), daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # join() without a timeout blocks Ctrl-C
            thread.join(1)
    if queue.failed:
        raise RassError('Some runs failed:\n' + '\n'.join(queue.failed))


class _Queue:
    """Queue that yields runs in order, each one only after its dependencies have finished."""

    def __init__(self, runs: Sequence[Run], again: Container[str] = ()) -> None:
        asked = [run for run in runs if run.system.name in again or not is_recorded(run)]
        lost = {need for run in asked for need in _needs(run) if not need.is_trained}
        self.waiting = [run for run in runs if run in asked or run in lost]
        self.again = again
        self.running: set[Run] = set()
        self.failed: list[str] = []
        self.changed = threading.Condition()
        recorded = sum(map(is_recorded, runs))
        logger.info('%d runs to do, %d recorded before', len(self.waiting), recorded)

    def take(self) -> Run | None:
        """Waits until a run is ready and returns it, or None if no runs are left."""
        with self.changed:
            while True:
                ready = [run for run in self.waiting if not self._missing(run)]
                if ready:
                    # Runs of another process come last because waiting for them would leave a worker idle.
                    run = next((run for run in ready if not is_locked(run.folder)), ready[0])
                    self.waiting.remove(run)
                    self.running.add(run)
                    return run
                if not self.running:
                    self.failed += [f'{run.label}: it needs {", ".join(self._missing(run))}' for run in self.waiting]
                    self.waiting = []
                if not self.waiting:
                    return None
                self.changed.wait()

    def finish(self, run: Run, failure: str | None) -> None:
        """Marks a run as finished or failed."""
        with self.changed:
            self.running.discard(run)
            if failure:
                self.failed.append(f'{run.label}: {failure}')
            self.changed.notify_all()

    def _missing(self, run: Run) -> list[str]:
        return [need.label for need in _needs(run) if not (is_recorded(need) and need.is_trained)]


def _needs(run: Run) -> list[Run]:
    systems = systems_of(run.setting, list(run.system.needs)) if run.system.needs else []
    return [Run(run.setting, system, run.seed) for system in systems if system.name in run.system.needs]


def _work(queue: _Queue) -> None:
    while (run := queue.take()) is not None:
        started = time.monotonic()
        logger.info('%s ...', run.label)
        try:
            _do(run, run.system.name in queue.again)
            failure = None
            logger.info('%s done (%.0f s)', run.label, time.monotonic() - started)
        except Exception as error:  # the other runs continue
            failure = str(error)
            logger.error('%s failed: %s', run.label, error)
        queue.finish(run, failure)


def _do(run: Run, again: bool) -> None:
    with locked(run.folder):
        search_rate(run, _call)
        _train(run)  # does nothing if another worker has finished the run by now
        if not is_recorded(run):
            _test(run)
            record, counts = make_record(run)
            add_records(run.setting, [write_counts(record, counts)])
            _slim(run)
        elif again:
            _test(run)
            record = with_hashes(*make_record(run))
            write_text(run.folder / AGAIN, json.dumps(record) + '\n')
            logger.info('%s again: %s', run.label, scores_beside(run, record))


def _train(run: Run) -> None:
    if run.training and not run.is_trained:
        _call(run.training, run.folder / 'train.log')


def _slim(run: Run) -> None:
    """Removes the state of the optimizer, two thirds of a file, from the checkpoint of a recorded run."""
    if run.training:
        checkpoint = read_tensors(run.checkpoint)
        checkpoint.pop('optimizer', None)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_bytes(run.checkpoint, content.getbuffer())


def _test(run: Run) -> None:
    for name, arguments in run.tests.items():
        _call(arguments, run.folder / f'test-{name}.log')


def _call(arguments: list[str], log: Path) -> None:
    """Runs one command and writes its output to a file.

    Raises:
        RassError: the command failed. The message ends with the last lines of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('a') as stream:
        stream.write(f'$ {typed(arguments)}\n')
    run_logged([sys.executable, '-W', 'ignore', *arguments], log, typed(arguments), {'PYTHONPATH': os.getcwd()})
