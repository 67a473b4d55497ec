"""Shards of a job: which images belong to a shard, and the names of its files in the output folder."""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from rass_mm.errors import ConfigError
from rass_mm.jobs.commands import Command

MOST = 100_000
"""Largest number of shards."""
FILE = re.compile(r'manifest\.shard-(\d+)-of-(\d+)\.(?:jsonl|done\.json)')
"""Names of the manifest and of the completion mark of a shard."""


@dataclass(frozen=True, order=True)
class Shard:
    """One of `count` shards of a job.

    An image belongs to the shard that is the remainder of a hash of its relative path. The choice therefore depends
    neither on the machine nor on the other images, and new images do not move others to another shard.

    Args:
        number: number of the shard; the first is 0.
        count: number of shards of the job.
        command: the command that processes the shard, or None if it was not started by one.

    Raises:
        ConfigError: the number or the count is out of range.
    """

    number: int
    count: int
    command: Command | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST:
            raise ConfigError(f'The number of shards is {self.count}, but it must be from 1 to {MOST}.')
        if not 0 <= self.number < self.count:
            raise ConfigError(
                f'There is no shard {self.number} of {self.count}. The first shard is 0 and the last is '
                f'{self.count - 1}.'
            )

    def __str__(self) -> str:
        return f'shard {self.number} of {self.count}'

    def has(self, name: str) -> bool:
        """Returns whether an image belongs to this shard. `name` is its path relative to the source, with slashes."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], 'big') % self.count == self.number

    @property
    def label(self) -> str:
        """Part of the names of all files of the shard."""
        return f'shard-{self.number}-of-{self.count}'

    @property
    def manifest(self) -> str:
        """Name of the manifest."""
        return f'manifest.{self.label}.jsonl'

    @property
    def mark(self) -> str:
        """Name of the completion mark, which is written at the end of a run and names the images that failed."""
        return f'manifest.{self.label}.done.json'

    @property
    def verified(self) -> str:
        """Name of the record of modification times, see `rass_mm.files.verified`."""
        return f'.rass_mm.verified.{self.label}.jsonl'

    @property
    def lock(self) -> str:
        """Name of the lock file."""
        return f'.rass_mm.{self.label}.lock'


def shards_in(out: Path) -> list[Shard]:
    """Returns the shards that have a manifest or a mark in an output folder, sorted; [] if there is no such folder."""
    names = os.listdir(out) if out.is_dir() else []
    found = {(int(match[1]), int(match[2])) for match in map(FILE.fullmatch, names) if match}
    return sorted(Shard(number, count) for number, count in found if number < count <= MOST)
