"""One fetch: every missing file of an entry is obtained, checked, renamed and recorded."""

import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rass_mm.errors import DownloadError
from rass_mm.fetching.checking import Measured, check
from rass_mm.fetching.places import STAGING, inside, staged, state_file
from rass_mm.fetching.records import remember, trust_file, trusted_hashes, write_record
from rass_mm.files.locks import held
from rass_mm.files.portable import replace
from rass_mm_cli.catalog import Entry, RemoteFile

ADVICE = 'Wait until it has ended, or choose another folder with --to.'
ANOTHER = 'Run the command again, or choose another source with --mirror or --from.'
RESERVE = 64 * 2**20
"""Bytes of the disk that stay free."""


class Source(Protocol):
    """Where files come from: `HubSource`, `WebSource` or `CopySource`."""

    def obtain(self, file: RemoteFile, folder: Path, report: Callable[[int], None]) -> Path:
        """Writes a file to the staging folder and returns its path. It is not checked yet."""

    def discard(self, file: RemoteFile, folder: Path) -> None:
        """Removes the file from the staging folder, so that it is not continued."""


@dataclass
class Plan:
    """State of a target folder before a fetch.

    Attributes:
        present: names and hashes of files that are there and checked.
        missing: files to obtain.
        trusted: name -> SHA-256 recorded on first use.
        first: names of files that are neither in the catalog nor recorded: they would be trusted on first use.
    """

    present: dict[str, Measured] = field(default_factory=dict)
    missing: list[RemoteFile] = field(default_factory=list)
    trusted: dict[str, str] = field(default_factory=dict)
    first: list[str] = field(default_factory=list)


def fetch(
    entry: Entry,
    folder: Path,
    source: Source,
    consent: Callable[[Plan], None],
    report: Callable[[str, int], None] = lambda name, done: None,
) -> dict[str, object]:
    """Brings all files of an entry into a folder and returns the record that is written there.

    Files that are there already are checked and kept. A file that differs is an error and is not overwritten.

    Args:
        entry: the entry.
        folder: the target folder, which is created if it is missing.
        source: where missing files come from.
        consent: called before anything is obtained or trusted; it raises an error to stop.
        report: called with the name of a file and the number of bytes that are there.

    Raises:
        DownloadError: a file cannot be obtained or is not the expected one, or the user does not agree.
        DataError: another command writes to the folder.
        OSError: the folder cannot be written or the disk is full.
    """
    with held(folder, clean=False, advice=ADVICE):
        folder.mkdir(parents=True, exist_ok=True)  # the lock does without a folder that it cannot create
        plan = inspect_folder(entry, folder)
        if plan.missing or plan.first:
            consent(plan)
        check_space(plan.missing, folder)
        for name in plan.first:
            if name in plan.present:
                remember(entry, name, plan.present[name].sha256)
        try:
            for file in plan.missing:
                plan.present[file.name] = _bring(entry, file, folder, source, plan, report)
                # A record per file: after an interruption the folder already belongs to this entry.
                write_record(entry, folder, str(source), plan.present)
        finally:
            _clean(entry, folder)
        record = write_record(entry, folder, str(source), {file.name: plan.present[file.name] for file in entry.files})
        _clean(entry, folder, complete=True)
    return record


def inspect_folder(entry: Entry, folder: Path) -> Plan:
    """Checks the files that are in the target folder and returns what is missing.

    Raises:
        DownloadError: a file is not the expected one.
    """
    plan = Plan(trusted=trusted_hashes(entry, folder))
    for file in entry.files:
        path = inside(folder, file.name)
        if not file.known and file.name not in plan.trusted:
            plan.first.append(file.name)
        if path.is_file():
            fix = 'It was not changed. Move it elsewhere, or choose another folder with --to.'
            plan.present[file.name] = check(path, file, plan.trusted.get(file.name), fix + _again(entry, file, plan))
        elif path.exists() or path.is_symlink():
            raise DownloadError(f'{path} is not a file, but a folder, a broken link or a device. Move it elsewhere.')
        else:
            plan.missing.append(file)
    return plan


def check_space(files: list[RemoteFile], folder: Path) -> None:
    """Raises an OSError if the disk is too full for files whose size is known."""
    needed = sum(file.size or 0 for file in files)
    partials = [staged(folder, file.name) for file in files]
    done = sum(path.stat().st_size for path in partials if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed and needed - done + RESERVE > free:
        text = f'{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free'
        raise OSError(errno.ENOSPC, text, str(folder))


def _bring(
    entry: Entry, file: RemoteFile, folder: Path, source: Source, plan: Plan, report: Callable[[str, int], None]
) -> Measured:
    """Obtains one file, checks it and renames it. Returns its size and hashes."""
    partial = source.obtain(file, folder, lambda done: report(file.name, done))
    try:
        found = check(
            partial, file, plan.trusted.get(file.name), f'It was removed. {ANOTHER}{_again(entry, file, plan)}'
        )
    except DownloadError:
        source.discard(file, folder)
        raise
    if not file.known:
        remember(entry, file.name, found.sha256)
    with partial.open('rb') as written:
        os.fsync(written.fileno())
    target = inside(folder, file.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise DownloadError(f'{target} was created meanwhile and was not changed. Move it, and run the command again.')
    replace(partial, target)
    return found


def _clean(entry: Entry, folder: Path, complete: bool = False) -> None:
    """Removes the partial files of an entry that have no content, or all if it is complete, and then an empty folder.

    Files of other entries and of the user stay, as does everything behind a link.
    """
    staging = inside(folder, STAGING)
    if staging.is_symlink():
        return
    for file in entry.files:
        partial = staged(folder, file.name)
        if partial.is_file() and not partial.is_symlink() and (complete or partial.stat().st_size == 0):
            partial.unlink()
        if not partial.exists():
            state_file(partial).unlink(missing_ok=True)
    with suppress(OSError):
        staging.rmdir()


def _again(entry: Entry, file: RemoteFile, plan: Plan) -> str:
    """Returns a sentence about a changed file that the user wants to trust. Empty unless a first use is recorded."""
    if file.name not in plan.trusted:
        return ''
    return f' If the publisher has changed the file and you trust the new one, delete {trust_file(entry)}.'
