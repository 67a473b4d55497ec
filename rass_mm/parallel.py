"""Worker processes, progress bars and logged subprocesses, shared by all commands that process many files."""

import logging
import multiprocessing
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import cv2
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rass_mm.errors import ConfigError, DataError, RassError

logger = logging.getLogger(__name__)
TAIL = 25
"""Number of log lines shown in the error of a failed command."""

Job = TypeVar('Job')
Result = TypeVar('Result')


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Context manager. Sets environment variables inside the block, also for processes that start there."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Pool(Protocol):
    """Interface of worker processes that live as long as a job, possibly on several machines."""

    def __call__(
        self, build: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job], manifest: Path, sources: Sequence[Path]
    ) -> Generator[Result, None, None]:
        """Yields the result of each job, in the order in which they become available.

        Args:
            build: function that each process calls once, and that returns the function of a job. It is pickled, as
                are jobs and results.
            jobs: the jobs.
            manifest: the manifest of the run in the output folder, which exists and which all processes must see.
            sources: folders that all processes read from.

        Raises:
            RassError: a process cannot do its part, e.g. because it does not see the folders, or it ended too often.
            OSError: an output cannot be written.
        """


def run_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Yields `function(job)` for each job, in the order in which the results become available.

    Args:
        function: a module-level function. With several workers, the function, jobs and results are pickled.
        jobs: the arguments of the calls.
        workers: number of processes; 1 runs the jobs in this process.

    Raises:
        ConfigError: `workers` is less than 1.
        DataError: a worker process was killed.
    """
    if workers < 1:
        raise ConfigError(f'The number of workers is {workers}, but it must be at least 1.')
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    # Forking a process in which libraries run threads can hang. A fork server has no threads and imports only once.
    method = 'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    if method == 'forkserver':
        context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            'A worker process ended unexpectedly, most likely because memory ran out. Run the same command again with '
            'fewer workers. Finished files are kept.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Initializes a worker process: one OpenCV thread, no reaction to Ctrl-C, and exit when the parent exits."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def progress_bar(*more: ProgressColumn, counted: bool = True) -> Progress:
    """Returns a progress bar on standard error, as a context manager. It is disabled outside of a terminal.

    Args:
        more: additional columns on the right.
        counted: whether 'done/total' is shown next to the bar.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    count = [MofNCompleteColumn()] if counted else []
    columns = [TextColumn('{task.description}'), BarColumn(), *count, TimeElapsedColumn(), TimeRemainingColumn(), *more]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def watched(results: Iterable[Result], total: int, title: str, unit: str = '') -> Iterator[Result]:
    """Yields the results and shows the progress: a bar in a terminal, otherwise a log line after every 10 %.

    Args:
        results: the results, as they become available.
        total: number of results.
        title: the activity, e.g. 'reading'.
        unit: the items that are counted, e.g. 'images'.
    """
    with progress_bar() as bar:
        row = bar.add_task(title, total=total)
        for done, result in enumerate(results, 1):
            bar.advance(row)
            if bar.disable and done * 10 // total > (done - 1) * 10 // total:
                logger.info(f'{title}: {done} of {total} {unit}'.rstrip())
            yield result


def run_logged(command: Sequence[str], log: Path, name: str, environment: dict[str, str] | None = None) -> float:
    """Runs a command with one thread, appends its output to a log file, and returns its CPU time in seconds.

    A command of this package ends when this process ends.

    Args:
        command: the program and its arguments.
        log: the log file, created if it does not exist.
        name: the name of the command in the error message.
        environment: environment variables to set in addition to those of this process.

    Raises:
        RassError: the command failed. The message ends with the last lines of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', **(environment or {})}
    environment['RASS_MM_PARENT'] = str(os.getpid())  # see rass_mm_cli.main.PARENT
    with (
        log.open('a', encoding='utf-8') as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        seconds = _ended(process)
    status = process.returncode
    if status:
        tail = '\n'.join(log.read_text(encoding='utf-8', errors='replace').splitlines()[-TAIL:])
        raise RassError(f'{name} failed with exit status {status}. Last lines of {log}:\n{tail}')
    return seconds


def _ended(process: subprocess.Popen) -> float:
    """Waits until a process ends. Returns its CPU time in seconds, or the elapsed time where there is no `wait4`."""
    if not hasattr(os, 'wait4'):
        start = time.monotonic()
        process.wait()
        return time.monotonic() - start
    _, status, usage = os.wait4(process.pid, 0)  # of this process only: others may run at the same time
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def core_count() -> int:
    """Returns the number of CPU cores that this process may use, or that the machine has if that is not known."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
