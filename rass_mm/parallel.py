"""Many small jobs in processes, with progress: what commands that go through folders of files share."""

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
"""Lines of a failed command's log that its error shows."""

Job = TypeVar('Job')
Result = TypeVar('Result')


def run_jobs(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """Yields `function(job)` for each job, in the order in which they are ready.

    Args:
        function: a function of a module; it, its jobs and its results are pickled.
        jobs: what to do.
        workers: number of processes; 1 works in this process.

    Raises:
        ConfigError: fewer than one worker.
        DataError: a process was killed from outside.
    """
    if workers < 1:
        raise ConfigError(f'The number of workers is {workers}; it must be 1 or more.')
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    # Forking a process whose libraries run threads can hang; a fork server imports once and has none.
    method = 'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload([function.__module__])
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        for future in as_completed([pool.submit(function, job) for job in jobs]):
            yield future.result()
    except BrokenProcessPool as error:
        raise DataError(
            'A worker process ended unexpectedly, most often for lack of memory. Run the same command again with fewer '
            'workers; files that are finished are kept.'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """One thread per worker; the parent alone answers Ctrl-C, and no worker waits for ever for a killed parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def progress_bar(*more: ProgressColumn, counted: bool = True) -> Progress:
    """Context manager: a progress bar on standard error; disabled where that is not a terminal.

    Args:
        more: columns at the right.
        counted: shows 'done/total' beside the bar.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    count = [MofNCompleteColumn()] if counted else []
    columns = [TextColumn('{task.description}'), BarColumn(), *count, TimeElapsedColumn(), TimeRemainingColumn(), *more]
    return Progress(*columns, console=console, disable=not console.is_terminal)


def watched(results: Iterable[Result], total: int, title: str, unit: str = '') -> Iterator[Result]:
    """Yields the results and shows progress: a bar in a terminal, a log line for every tenth elsewhere.

    Args:
        results: as they come.
        total: their number.
        title: what is going on ('reading').
        unit: what is counted ('images').
    """
    with progress_bar() as bar:
        row = bar.add_task(title, total=total)
        for done, result in enumerate(results, 1):
            bar.advance(row)
            if bar.disable and done * 10 // total > (done - 1) * 10 // total:
                logger.info(f'{title}: {done} of {total} {unit}'.rstrip())
            yield result


def run_logged(command: Sequence[str], log: Path, name: str, environment: dict[str, str] | None = None) -> float:
    """Runs one command with one thread and its output at the end of a file; returns its CPU seconds.

    Args:
        command: the program and its arguments.
        log: the file; made if it is not there.
        name: what the message calls the command.
        environment: variables beside those of this process.

    Raises:
        RassError: it failed; the message ends with the last lines of the file.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', **(environment or {})}
    with (
        log.open('a') as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)  # the usage of this process alone: others run beside it
        process.returncode = status = os.waitstatus_to_exitcode(status)
    if status:
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-TAIL:])
        raise RassError(f'{name} failed with status {status}. The end of {log}:\n{tail}')
    return usage.ru_utime + usage.ru_stime
