"""Merge of the shards of a job into the manifest that one process would have written."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rass_mm.errors import DataError
from rass_mm.files.locks import held
from rass_mm.files.manifest import MANIFEST, Record, read_manifest, write_manifest
from rass_mm.files.verified import Verified
from rass_mm.jobs.part import SHARD, beginning
from rass_mm.jobs.shard import Shard, shards_in
from rass_mm.jobs.status import JobState, job_state, shortened

logger = logging.getLogger(__name__)

VERSIONS = ('version', 'versions')
"""Keys of headers whose values may differ between shards."""
Finish = Callable[[Path, list[Record], Mapping[str, Any]], None]
"""Writes what the folder has once, from the output folder, all lines by image name, and the notes of the shards."""


def merge_shards(out: Path, finish: Finish | None = None) -> int:
    """Merges the manifests of all shards into one and removes them. The folder then continues as one without shards.

    A merge that was killed can be repeated.

    Args:
        out: the output folder.
        finish: function that writes further files, or None. It is called before the manifest is written.

    Returns:
        The number of images.

    Raises:
        DataError: a shard never ran, is running or is incomplete, or shards differ in their settings or images. The
            message names the shards and the images that failed.
    """
    if not shards_in(out):
        job_state(out)  # says why there are none, before a folder is created
    with beginning(out):
        if (out / MANIFEST).exists():
            return _continue_removal(out)
        job = job_state(out)
        if not job.complete:
            faults = '\n'.join(f'  {line}' for line in shortened(job.faults()))
            raise DataError(f'The shards in {out} cannot be merged yet:\n{faults}')
        with held(out):  # no shard is running, so leftovers can be removed
            _merge(job, finish)
        return job.done


def _merge(job: JobState, finish: Finish | None) -> None:
    out, lines = job.out, {}
    for state in job.shards:
        lines.update(state.lines)
    ordered = [lines[name] for name in sorted(lines)]
    header = {key: value for key, value in job.shards[0].header.items() if key != SHARD}
    if any(state.header.get(key) != header.get(key) for state in job.shards for key in VERSIONS):
        logger.warning('The shards in %s were made with different versions.', out)
    if finish is not None:
        notes: dict[str, Any] = {}
        for state in job.shards:
            notes |= state.record['notes']
        finish(out, ordered, notes)
    Verified(out).include(Verified(out, state.shard.verified) for state in job.shards)
    write_manifest(out / MANIFEST, header, ordered)
    for state in job.shards:
        _remove(out, state.shard)


def _continue_removal(out: Path) -> int:
    """Removes the shards of a folder whose merge was killed after its manifest was written."""
    lines = read_manifest(out / MANIFEST)[1]
    shards = shards_in(out)
    for shard in shards:
        own = read_manifest(out / shard.manifest)[1] if (out / shard.manifest).exists() else {}
        if any(lines.get(name) != line for name, line in own.items()):
            raise DataError(
                f'{out / MANIFEST} is not the merged manifest of {out / shard.manifest}. Move one of them elsewhere.'
            )
    for shard in shards:
        _remove(out, shard)
    return len(lines)


def _remove(out: Path, shard: Shard) -> None:
    for name in (shard.verified, shard.lock, shard.mark, shard.manifest):
        with suppress(FileNotFoundError):
            (out / name).unlink()
