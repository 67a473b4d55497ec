"""`rass-mm jobs retry`: runs the shards of a job that are not done, by the commands that their manifests record."""

import contextlib
import importlib
import io
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rass_mm.errors import DataError
from rass_mm.files.schemas import checked
from rass_mm.jobs.commands import CommandRecord, with_shard
from rass_mm.jobs.status import DONE, RUNNING, JobState, ShardState, counted, job_state
from rass_mm_cli.main import INTERRUPTED, PARENT, parser_of
from rass_mm_cli.table import COMMANDS

logger = logging.getLogger(__name__)

RETRIED = ('segment', 'restore', 'make-lq')
YOURSELF = 'Give the commands of these shards yourself.'
PATIENCE = 60
"""Seconds after Ctrl-C in which a shard can end its processes and remove temporary files."""


class _Retry(NamedTuple):
    """A shard to run, its command, and the working directory."""

    number: int
    name: str
    arguments: list[str]
    folder: str

    def __str__(self) -> str:
        return shlex.join(['rass-mm', self.name, *self.arguments])


def retry(out: Path) -> int:
    """Runs the shards of an output folder that are not done, one after the other, and returns the exit status.

    If shards were planned for different images, all are run; those that are done only look for new images. A shard that
    never ran gets the command of another shard. All commands are checked before the first one is run. A shard that
    fails does not stop those after it.

    Raises:
        DataError: the folder has no shards, a shard is running, or a recorded command is missing or refused.
    """
    job = job_state(out)
    if running := job.of(RUNNING):
        holders = '\n'.join(f'  {state.shard}: {state.holder}' for state in job.shards if state.state == RUNNING)
        raise DataError(
            f'Running in {out}: {counted(running)}\n{holders}\nWait until the end, or stop what is running.'
        )
    retries = [_planned(job, state) for state in job.shards if job.differing or state.state != DONE]
    failed = []
    for planned in retries:
        logger.info('Shard %d of %d, in %s: %s', planned.number, len(job.shards), planned.folder, planned)
        status = _run(planned)
        if status == INTERRUPTED:
            return INTERRUPTED
        if status:
            failed.append(planned.number)
    if failed:
        raise DataError(
            f'Failed again in {out}: {counted(failed)}. The messages are above; images that failed are also in rass-mm '
            f'jobs status {out}.'
        )
    return 0


def _run(planned: _Retry) -> int:
    # -P: modules are not searched in the working directory, which comes from a manifest.
    command = [sys.executable, '-P', '-m', 'rass_mm_cli', planned.name, *planned.arguments]
    environment = {**os.environ, PARENT: str(os.getpid())}
    try:
        process = subprocess.Popen(command, cwd=planned.folder, env=environment)
    except (OSError, ValueError) as error:  # e.g. arguments that are too long
        raise DataError(f'The command of shard {planned.number} cannot be started ({error}). {YOURSELF}') from None
    try:
        return process.wait()
    except KeyboardInterrupt:  # which the process of the shard gets as well
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        raise
    finally:
        process.terminate()  # has no effect if it has ended


def _planned(job: JobState, state: ShardState) -> _Retry:
    """Returns how a shard is run: by its own command, or by that of the first shard that recorded one."""
    own = [state] if state.record and 'command' in state.record else []
    others = [other for other in job.shards if other.record and 'command' in other.record]
    recorded = next(iter(own + others), None)
    if recorded is None:
        raise DataError(
            f'No manifest in {job.out} records its command, because the shards were run from Python or by an earlier '
            f'version. {YOURSELF}'
        )
    manifest = job.out / recorded.shard.manifest
    record = checked(recorded.record['command'], CommandRecord, f'{manifest}, shard.command', YOURSELF)
    number, count = state.shard.number, state.shard.count
    if record['name'] not in RETRIED:
        raise DataError(
            f'{manifest} records the command {record["name"]!r}, but only {", ".join(RETRIED)} have shards. {YOURSELF}'
        )
    planned = _Retry(number, record['name'], with_shard(record['arguments'], number, count), record['folder'])
    _check(planned, manifest, job.out, count)
    return planned


def _check(planned: _Retry, manifest: Path, out: Path, count: int) -> None:
    """Raises a DataError unless a command from a manifest is one for this shard and runs no code from other files."""
    _check_text([planned.folder, *planned.arguments], manifest)
    what = f'{manifest} records the command {planned} (in {planned.folder})'
    if not os.path.isabs(planned.folder) or not os.path.isdir(planned.folder):
        raise DataError(f'{what}, but {planned.folder} is not a folder on this machine. {YOURSELF}')
    module, said = importlib.import_module(COMMANDS[planned.name].module), io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parsed = parser_of(planned.name, module).parse_args(planned.arguments)
    except SystemExit:
        reason = said.getvalue().strip().splitlines()[-1:] or ['it is not complete']
        raise DataError(f'{what}, which cannot be given: {reason[0]}. {YOURSELF}') from None
    target = Path(planned.folder, parsed.out)
    if target.resolve() != out.resolve():
        raise DataError(f'{what}, which writes to {target} instead of {out}. {YOURSELF}')
    if (parsed.shards, parsed.shard) != (count, planned.number):
        raise DataError(f'{what}, which is not one for shard {planned.number} of {count}. {YOURSELF}')
    config = getattr(parsed, 'config', None)
    code = config is not None and Path(planned.folder, config).is_file() and Path(config).suffix == '.py'
    if code or parsed.ray is not None or getattr(parsed, 'cfg_options', None):
        option = '--config' if code else '--ray' if parsed.ray is not None else '--cfg-options'
        raise DataError(f'{what}. A manifest is data, but {option} can run code. {YOURSELF}')


def _check_text(texts: Sequence[str], manifest: Path) -> None:
    """Raises a DataError if a process cannot get a text as an argument or folder."""
    for text in texts:
        try:
            valid = b'\0' not in os.fsencode(text)
        except UnicodeEncodeError:  # half of a surrogate pair
            valid = False
        if not valid:
            raise DataError(
                f'{manifest} records the argument or folder {text!r}, which contains a zero byte or an invalid '
                f'character. {YOURSELF}'
            )
