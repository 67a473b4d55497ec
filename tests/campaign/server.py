"""Runs commands in forks of one process that has imported the package, so that a case takes no seconds of imports.

A fork has its own working directory, output, cache and time limit, and ends with the exit status of the command. Its
whole process group is killed at the end, so that nothing outlives a case.
"""

import contextlib
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from campaign.cases import SECONDS, Case, Outcome, verdict

CANARY = 'RASS_CANARY'
"""Environment variable with the file that malicious inputs write."""
RESET_PEAK = '5'
"""Text that, written to /proc/PID/clear_refs, sets the peak of a process to its present memory."""


def warm_up() -> None:
    """Imports all that the commands import."""
    import torch

    torch.set_num_threads(1)
    from rass_mm.errors import RassError  # noqa: F401
    from rass_mm_cli.table import COMMANDS

    for command in COMMANDS.values():
        __import__(command.module)
    import mmseg.models  # noqa: F401

    import rass_mm.restoration
    import rass_mm.segmentation  # noqa: F401


def run_case(case: Case, kit: 'Path', folder: Path) -> tuple[Outcome, list[str]]:
    """Runs a case in a new working directory and judges it. The directory is removed if nothing is wrong.

    Args:
        case: the case.
        kit: folder of the kit.
        folder: the working directory to make.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log, canary = folder.with_suffix('.log'), folder.with_suffix('.canary')
    canary.unlink(missing_ok=True)
    if case.prepare is not None:
        with contextlib.chdir(folder):
            case.prepare(folder, kit)
    outcome = forked(lambda: _command(case, kit, folder), folder, log, canary, case.environment)
    wrong = None
    if case.check is not None:
        try:
            with contextlib.chdir(folder):
                wrong = case.check(folder)
        except Exception as error:
            wrong = f'the check failed: {type(error).__name__}: {error}'
    faults = verdict(case, outcome, wrong)
    if not faults:
        _remove(folder)
        log.unlink()
    return outcome, faults


def _remove(folder: Path) -> None:
    for path in [folder, *folder.rglob('*')]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)


def _command(case: Case, kit: Path, folder: Path) -> int:
    if not callable(case.command):
        from rass_mm_cli.main import main

        return main(case.arguments(kit))
    from rass_mm.errors import RassError

    try:
        case.command(folder)
    except RassError as error:
        sys.stderr.write(f'error: {error}\n')
        return 1
    return 0


def forked(
    call: Callable[[], int],
    folder: Path,
    log: Path,
    canary: Path,
    environment: dict[str, str] | None = None,
    limit: float = SECONDS,
) -> Outcome:
    """Calls a function in a fork of this process, in a working directory.

    Args:
        call: returns the exit status.
        folder: the working directory.
        log: file for what it writes.
        canary: file that shows that code of an input ran.
        environment: further environment variables.
        limit: seconds after which it is killed.
    """
    started = time.monotonic()
    sys.stdout.flush()
    sys.stderr.flush()
    meter = Meter()
    child = os.fork()
    if not child:
        in_child(meter.around(call), folder, log, {CANARY: str(canary), **(environment or {})})
    hung = False
    while True:
        meter.sample(child)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() - started > limit:
            hung = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # workers that the command left behind
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    text = log.read_text(encoding='utf-8', errors='backslashreplace')
    return Outcome(code, time.monotonic() - started, meter.peak, text, canary.exists(), hung)


class Meter:
    """Peak memory of a fork of this process beyond its memory at the start, and of its children.

    The fork reports it at its end. That of a killed fork is the last sample.
    """

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, 16)
        self.sampled = 0

    def around(self, call: Callable[[], int]) -> Callable[[], int]:
        """Returns a function for the fork that calls another one and reports the peak."""

        def measured() -> int:
            Path('/proc/self/clear_refs').write_text(RESET_PEAK)
            start = memory('VmRSS')
            self._report(start, 0)
            try:
                return call()
            finally:
                own = memory('VmHWM') - start
                self._report(start, max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss - start))

        return measured

    def _report(self, start: int, peak: int) -> None:
        self.shared[:] = struct.pack('qq', start, max(peak, 0))

    def sample(self, process: int) -> None:
        """Measures the running fork."""
        start, _ = struct.unpack('qq', self.shared)
        with contextlib.suppress(OSError, StopIteration):
            if start:
                self.sampled = max(self.sampled, memory('VmHWM', process) - start)

    @property
    def peak(self) -> float:
        """Returns the peak in MiB."""
        return max(self.sampled, struct.unpack('qq', self.shared)[1]) / 1024


def memory(key: str, process: int | str = 'self') -> int:
    """Returns an entry of the status of a process in KiB, e.g. its peak, VmHWM."""
    lines = Path(f'/proc/{process}/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def in_child(call: Callable[[], int], folder: Path, log: Path, environment: dict[str, str]) -> None:
    """Calls a function in this process, which is a new fork, and ends the process with its result as exit status."""
    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, file), (2, file)):
            os.dup2(source, target)
        os.environ.update(environment)
        sys.stdout, sys.stderr = (
            open(number, 'w', errors='backslashreplace', closefd=False)  # noqa: SIM115  (until the process ends)
            for number in (1, 2)
        )
        status = call()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
        if isinstance(end.code, str):
            sys.stderr.write(end.code + '\n')
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(int(status or 0) & 0xFF)
