"""The part of a job that one run does: its files in the output folder, its lock, and what it records for other runs."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from rass_mm.errors import DataError
from rass_mm.files.atomic import MARK, remove_abandoned, write_text
from rass_mm.files.hashing import json_sha256
from rass_mm.files.locks import held, holder_of
from rass_mm.files.manifest import (
    MANIFEST,
    PARTIAL,
    Record,
    has_header_only,
    read_header,
    remove_leftovers,
    write_manifest,
)
from rass_mm.files.naming import shortened
from rass_mm.files.schemas import FileName
from rass_mm.files.verified import VERIFIED
from rass_mm.jobs.shard import Shard, shards_in

SHARD = 'shard'
"""Key of a shard's record in the header of its manifest. The rest of the header is that of a run without shards."""
TOKEN = '.token'
"""Suffix of the files of a pool in the output folder, see `token_prefix`."""
STAGING = '.rass_mm.staged'
"""Folder of a run below the output folder, for sources out of containers and for outputs that go into packs."""
SETUP, PATIENT = '.rass_mm.shards.lock', 600.0
"""Lock that shards hold for a moment while they begin, and the seconds in which others wait for it."""
CROWDED = (
    f'Shards begin one after the other, and not during a merge. This command has waited {PATIENT:.0f} s. Check whether '
    'that process hangs, then give this command again.'
)


class ShardRecord(TypedDict):
    """Record of a shard in the header of its manifest.

    `job` and `plan` are hashes of the settings and of the names of all images of the job, which are equal in all its
    shards. `source` is the resolved source, which is one of the settings. `images` is the number of images of the
    shard, `planned` that of the job. `notes` are values that the merge needs, e.g. the class names. `command` is
    the command of the last run, a `rass_mm.jobs.commands.CommandRecord`.
    """

    number: int
    count: int
    job: str
    source: str | list[str]
    images: int
    planned: int
    plan: str
    notes: dict[str, Any]
    command: NotRequired[Any]


class Mark(TypedDict):
    """Completion mark of a shard: the images that failed, by name, with the reason. It is complete if none did."""

    failed: dict[FileName, FileName]  # texts that may contain bytes that are not UTF-8


class Part:
    """All images of a job, or those of one of its shards.

    Args:
        out: the output folder.
        names: names of all images of the job, also of those of other shards.
        shard: the shard, or None for all images.
    """

    def __init__(self, out: Path, names: Iterable[str] = (), shard: Shard | None = None) -> None:
        self.out, self.shard = out, shard
        self.names = sorted(names)
        self.manifest = out / (shard.manifest if shard else MANIFEST)
        self.verified = shard.verified if shard else VERIFIED
        self.staging = out / f'{STAGING}.{shard.label}' if shard else out / STAGING
        self._unused = False

    def staged(self, role: str, name: str) -> Path:
        """Returns the path in the staging folder for a file that has no place of its own in the output folder.

        Args:
            role: kind of the file, because an image and its output may have the same name.
            name: name of the image or output, which is the only one with this role and name.
        """
        stem, suffix = os.path.splitext(os.path.basename(name))
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        return self.staging / shortened(f'{role}-{digest}-{stem}', suffix)

    def has(self, name: str) -> bool:
        """Returns whether an image belongs to this part."""
        return self.shard is None or self.shard.has(name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Context manager. Holds the lock of the folder, or only that of the shard, so that other shards can run.

        If the block ends before `begin` or `finish`, e.g. because the model cannot be loaded, a manifest that `claim`
        made is removed, so that the corrected command is not refused.

        Raises:
            DataError: another process holds the lock, or the folder belongs to runs with another number of shards.
        """
        self._refuse_mixing()
        if self.shard is None:
            lock = held(self.out)
        else:
            lock = held(self.out, self.shard.lock, f'{self.out}, {self.shard},', clean=False)
        with lock:
            if self.shard is None:
                self._refuse_mixing()
            try:
                yield
            finally:
                if self._unused:
                    self.manifest.unlink(missing_ok=True)
                with suppress(OSError):
                    self.staging.rmdir()  # only if it is empty

    def header(self, header: Record, identity: Mapping[str, Any]) -> Record:
        """Returns the header of the manifest. A shard's header also has its record, with the notes of earlier runs.

        Args:
            header: the header of a manifest of all images.
            identity: values that must be the same in all runs: those of the header, and 'source', which is resolved.
        """
        if self.shard is None:
            return header
        job, earlier = json_sha256(identity)[:16], read_header(self.manifest).get(SHARD)
        same = isinstance(earlier, dict) and earlier.get('job') == job
        record: ShardRecord = {
            'number': self.shard.number,
            'count': self.shard.count,
            'job': job,
            'source': identity['source'],
            'images': sum(map(self.shard.has, self.names)),
            'planned': len(self.names),
            'plan': json_sha256(self.names)[:16],
            'notes': earlier.get('notes', {}) if same else {},
        }
        if self.shard.command is not None:
            record['command'] = self.shard.command.record()
        return {**header, SHARD: record}

    @property
    def settled(self) -> bool:
        """Whether the settings must be those of the manifest. That of a shard settles nothing until it has an image."""
        return self.shard is None or (self.manifest.exists() and not has_header_only(self.manifest))

    def claim(self, header: Record) -> None:
        """Prepares the run of a shard: removes its mark, and writes its manifest if no image is recorded.

        Args:
            header: a header from `header`.

        Raises:
            DataError: the folder belongs to other runs: without shards, with another number of shards, or with other
                settings.
        """
        if self.shard is None:
            return
        with beginning(self.out), held(self.out, clean=False):
            self._refuse_other_settings(header, self._refuse_mixing())
            (self.out / self.shard.mark).unlink(missing_ok=True)
            if not self.settled:
                self._unused = not self.manifest.exists()
                write_manifest(self.manifest, header, [])

    def begin(self) -> None:
        """Begins the first image. The manifest of a shard is kept from now on, also if the run fails."""
        self._unused = False

    def clean(self, suffixes: Iterable[str], targets: Iterable[Path]) -> None:
        """Removes the temporary files of a killed run. A shard removes those of its own files only.

        Args:
            suffixes: suffixes of the files that were written.
            targets: the outputs of this part.
        """
        if self.shard is None:
            remove_leftovers(self.out, suffixes)
            return
        for token in self.out.glob(f'{token_prefix(self.manifest, "*")}????????{TOKEN}'):
            remove_abandoned(token)
        own = (self.manifest, self.out / self.shard.mark, self.out / self.verified)
        remove_leftovers(self.out, {*suffixes, '.json'}, [*targets, *own])

    def clean_staging(self, keep: Iterable[Path]) -> None:
        """Removes the files in the staging folder, which a killed run has left, except those to keep."""
        kept = set(keep)
        for path in self.staging.iterdir() if self.staging.is_dir() else ():
            if path not in kept:
                path.unlink()

    def finish(self, header: Record, lines: Iterable[Record], failed: Mapping[str, str]) -> None:
        """Ends the run of a shard: writes its manifest and its mark.

        Args:
            header: a header from `header`.
            lines: the lines of all finished images.
            failed: the images that failed, by name, with the reason.
        """
        if self.shard is not None:
            self.begin()
            write_manifest(self.manifest, header, lines)
            write_text(self.out / self.shard.mark, json.dumps({'failed': dict(sorted(failed.items()))}) + '\n')

    def _refuse_mixing(self) -> list[Shard]:
        """Raises an error if the folder belongs to other runs; returns its shards."""
        shards = shards_in(self.out)
        if self.shard is None:
            if shards:
                raise DataError(
                    f'{self.out} belongs to a job of {shards[0].count} shards ({shards[0].manifest}), but this command '
                    f'has none. Finish its shards (rass-mm jobs status {self.out}) and merge them (rass-mm jobs merge '
                    f'{self.out}), or choose another output folder.'
                )
            return shards
        whole = next((name for name in (MANIFEST, PARTIAL) if (self.out / name).exists()), None)
        if whole is not None:
            raise DataError(
                f'{self.out} belongs to a run without shards, or its shards are merged ({whole}), but this command is '
                f'{self.shard}. Give the command without --shards, or choose another output folder.'
            )
        other = next((shard for shard in shards if shard.count != self.shard.count), None)
        if other is not None:
            raise DataError(
                f'{self.out} belongs to a job of {other.count} shards ({other.manifest}), but this command is '
                f'{self.shard}. Use the same number of shards, or choose another output folder.'
            )
        return shards

    def _refuse_other_settings(self, header: Record, shards: list[Shard]) -> None:
        others = (self.out / shard.manifest for shard in shards if shard != self.shard and self._has_run(shard))
        manifest = next(others, None)
        # The manifests of the other shards that have run are equal to it.
        other = {} if manifest is None else read_header(manifest)
        if isinstance(other.get(SHARD), dict) and other[SHARD].get('job') != header[SHARD]['job']:
            listed = differing(_resolved(other), _resolved(header))
            raise DataError(
                f'{manifest} shows that the other shards were made with other settings:\n{listed}\nChoose another '
                'output folder, delete this one, or use the same settings as for the other shards.'
            )

    def _has_run(self, shard: Shard) -> bool:
        """Returns whether another shard has images or has ended, or is running."""
        manifest = self.out / shard.manifest
        if not manifest.exists():
            return False
        ended = (self.out / shard.mark).exists()
        return ended or not has_header_only(manifest) or holder_of(self.out, shard.lock) is not None


def token_prefix(manifest: Path, batch: int | str = '') -> str:
    """Returns the beginning of the names of the files with which a pool observes its processes.

    Args:
        manifest: manifest of the run, which tells the shards apart.
        batch: number of the batch in progress; '' for the file that exists as long as the pool.
    """
    return f'.ray{batch}.{manifest.stem}{MARK}'


def beginning(out: Path) -> AbstractContextManager[None]:
    """Holds the lock of an output folder while a shard begins or shards are merged."""
    return held(out, SETUP, f'The start of shards in {out}', PATIENT, clean=False, advice=CROWDED)


def _resolved(header: Record) -> Record:
    return {**header, 'source': header[SHARD].get('source')}


def differing(before: Record, now: Record) -> str:
    """Returns one line for each key whose values differ in two headers, except the record of the shard."""
    keys = [key for key in now if key != SHARD and before.get(key) != now[key]]
    return '\n'.join(f'  {key}: {before.get(key)}, now {now[key]}' for key in keys)
