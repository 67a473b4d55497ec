"""State of the shards of a job, from their manifests, marks and locks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rass_mm.errors import DataError
from rass_mm.files.locks import holder_of
from rass_mm.files.manifest import AGAIN, MANIFEST, Record, read_manifest
from rass_mm.files.schemas import checked, read_json
from rass_mm.jobs.part import SHARD, Mark, ShardRecord
from rass_mm.jobs.shard import Shard, shards_in

DONE, RUNNING, INCOMPLETE, NEVER = 'done', 'running', 'incomplete', 'never ran'
STATES = (DONE, RUNNING, INCOMPLETE, NEVER)
LISTED = 20
"""Largest number of lines in a message."""


@dataclass(frozen=True)
class ShardState:
    """State of a shard.

    Args:
        shard: the shard.
        state: one of `STATES`. A shard with images that failed is incomplete.
        header: header of its manifest; {} if it never ran.
        lines: lines of its manifest by image name.
        failed: the images that failed in its last run, by name, with the reason.
        holder: the process that runs it, or None.
    """

    shard: Shard
    state: str
    header: Record
    lines: dict[str, Record]
    failed: dict[str, str]
    holder: str | None

    @property
    def record(self) -> ShardRecord | None:
        """Record of the shard in its manifest, or None if it never ran."""
        return self.header.get(SHARD)

    def summary(self) -> dict[str, Any]:
        """Returns the state as JSON. `images` is None if the shard never ran."""
        return {
            'shard': self.shard.number,
            'state': self.state,
            'images': self.record and self.record['images'],
            'done': len(self.lines),
            'failed': self.failed,
            'process': self.holder,
        }


@dataclass(frozen=True)
class JobState:
    """State of a job: one `ShardState` for each shard, by number; also for shards that never ran."""

    out: Path
    shards: list[ShardState]

    @property
    def planned(self) -> int:
        """Number of images of the job, of all its shards."""
        return max((state.record['planned'] for state in self.shards if state.record), default=0)

    @property
    def done(self) -> int:
        """Number of finished images."""
        return sum(len(state.lines) for state in self.shards)

    @property
    def complete(self) -> bool:
        """Whether all shards are done and were planned with the same images."""
        return not self.faults()

    @property
    def differing(self) -> bool:
        """Whether shards were planned with other settings or for other images."""
        return any(self._differences())

    def of(self, state: str) -> list[int]:
        """Returns the numbers of the shards in a state."""
        return [found.shard.number for found in self.shards if found.state == state]

    def faults(self) -> list[str]:
        """Returns one line for each reason why the shards cannot be merged."""
        lines = []
        for state, cure in (
            (NEVER, 'start them'),
            (INCOMPLETE, 'give their commands again'),
            (RUNNING, 'wait for them'),
        ):
            if numbers := self.of(state):
                lines.append(f'{state}: shards {listed(numbers)} (of {len(self.shards)}): {cure}')
        return lines + self._failures() + list(self._differences())

    def _failures(self) -> list[str]:
        return [
            f'failed in shard {state.shard.number}: {name}: {reason}'
            for state in self.shards
            for name, reason in state.failed.items()
        ]

    def _differences(self) -> Iterator[str]:
        started = [state for state in self.shards if state.record]
        for key, meaning in (('job', 'with other settings'), ('plan', 'for other images')):
            groups: dict[str, list[int]] = {}
            for state in started:
                groups.setdefault(state.record[key], []).append(state.shard.number)
            if len(groups) > 1:
                parts = ' and '.join(map(listed, groups.values()))
                yield f'shards {parts} were planned {meaning}: give their commands again with the same images'

    def summary(self) -> dict[str, Any]:
        """Returns the state as JSON."""
        return {
            'out': str(self.out),
            'shards': len(self.shards),
            'complete': self.complete,
            'images': self.planned,
            'done': self.done,
            'failed': sum(len(state.failed) for state in self.shards),
            'states': [state.summary() for state in self.shards],
        }


def shortened(lines: list[str]) -> list[str]:
    """Returns the first `LISTED` lines and the number of the others."""
    return lines[:LISTED] + [f'and {len(lines) - LISTED} more'] * (len(lines) > LISTED)


def listed(numbers: list[int]) -> str:
    """Returns sorted numbers with ranges, e.g. '0-3, 7'."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ', '.join(str(first) if first == last else f'{first}-{last}' for first, last in runs)


def counted(numbers: list[int]) -> str:
    """Returns the word shard or shards, and the numbers as `listed` does."""
    return f'shard{"s" * (len(numbers) > 1)} {listed(numbers)}'


def job_state(out: Path) -> JobState:
    """Reads the state of the shards of an output folder.

    Raises:
        DataError: the folder has no shards, has shards of several jobs, or a manifest or mark is damaged.
    """
    found = shards_in(out)
    if not found:
        reason = f'has no shards, but a {MANIFEST}: they are merged, or it was made without shards'
        if not (out / MANIFEST).exists():
            reason = 'has no shards. Pass the output folder of a command that was given with --shards'
        raise DataError(f'{out} {reason}.')
    if (out / MANIFEST).exists():
        raise DataError(f'The merge of the shards in {out} was interrupted. Give it again: rass-mm jobs merge {out}.')
    counts = sorted({shard.count for shard in found})
    if len(counts) > 1:
        raise DataError(
            f'{out} has manifests of {" and of ".join(map(str, counts))} shards, so they are of several jobs. Remove '
            f'those of one job, e.g. manifest.{found[0].label}.*, and its images.'
        )
    return JobState(out, [_shard_state(out, Shard(number, counts[0])) for number in range(counts[0])])


def _shard_state(out: Path, shard: Shard) -> ShardState:
    holder = holder_of(out, shard.lock)  # first: a shard that ends meanwhile is then seen with its mark
    manifest, mark = out / shard.manifest, out / shard.mark
    if not manifest.exists():
        return ShardState(shard, RUNNING if holder else NEVER, {}, {}, {}, holder)
    header, lines = read_manifest(manifest)
    record = checked(header.get(SHARD), ShardRecord, f'{manifest}, {SHARD}', AGAIN)
    if (record['number'], record['count']) != (shard.number, shard.count):
        raise DataError(f'{manifest} is that of shard {record["number"]} of {record["count"]}. Give it its name back.')
    foreign = next((name for name in lines if not shard.has(name)), None)
    if foreign is not None:
        raise DataError(f'{manifest} has the image {foreign}, which belongs to another shard. {AGAIN}')
    failed = None
    if mark.exists():
        failed = read_json(mark, Mark, f'Give the command of {shard} again.')['failed']
    whole = failed == {} and len(lines) >= record['images']
    state = RUNNING if holder else DONE if whole else INCOMPLETE
    return ShardState(shard, state, header, lines, failed or {}, holder)
