"""Worker processes, progress bars and logged subprocesses, shared by all commands that process many files."""

import logging
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

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
        log.open('a') as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)  # of this process only: others may run at the same time
        process.returncode = status = os.waitstatus_to_exitcode(status)
    if status:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-TAIL:])
        raise RassError(f'{name} failed with exit status {status}. Last lines of {log}:\n{tail}')
    return usage.ru_utime + usage.ru_stime
