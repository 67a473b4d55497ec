"""Outputs of a job in containers ("packs") instead of single files.

Each finished image is recorded at once, with its outputs in the staging folder of the run. When there are enough of
them, they are written to a pack, the lines of their images get its name, and the staged files are removed. A killed run
therefore repeats at most the images in progress. A pack is all or nothing: if one of its images has to be made again,
all of them are.
"""

import logging
import re
import zlib
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from rass_mm.errors import DataError
from rass_mm.files.containers.kinds import KINDS, kind_module, list_container, read_member, write_container
from rass_mm.files.manifest import Record, append_lines, checksum
from rass_mm.files.verified import Verified, file_state
from rass_mm.jobs.part import Part

logger = logging.getLogger(__name__)

PACKED, CHECKSUMS = 'packed', 'crc32'
"""Keys of a manifest line: the name of the pack with the outputs, and the checksums of the outputs."""
MOST_IMAGES, MOST_BYTES = 1000, 2**28
"""Images and bytes of outputs after which a pack is complete."""
NAME = re.compile(rf'(pack(?:-shard-\d+-of-\d+)?)-(\d{{5,9}})\.(?:{"|".join(KINDS)})')
"""Names of packs: of all images, or of those of a shard."""


class Staged(NamedTuple):
    """Outputs of a finished image: their names in the pack, and their files in the staging folder."""

    image: str
    names: tuple[str, ...]
    files: tuple[Path, ...]


class Packer:
    """Writes the outputs of a run to packs and records them in the lines of its manifest.

    Args:
        part: the part of the job that this run does, whose lock must be held.
        kind: kind of the packs, one of `KINDS`.
        lines: the lines of finished images by name, which are changed in place.
        verified: record of the files in the output folder.
        journal: manifest to which lines are appended; None is that of the part.

    Raises:
        InstallationError: a library for the kind is missing.
    """

    def __init__(
        self, part: Part, kind: str, lines: dict[str, Record], verified: Verified, journal: Path | None = None
    ) -> None:
        kind_module(kind)
        self.part, self.kind, self.lines, self.verified = part, kind, lines, verified
        self.waiting: dict[str, Staged] = {}
        self.size = 0
        self.journal = journal or part.manifest
        for name, images in self._packs().items():
            if not self._is_whole(name, images):
                logger.warning('%s is missing, damaged or incomplete. Its images are made again.', part.out / name)
                self._unpack(images)
        self.number = self._free_number()

    def _packs(self) -> dict[str, list[str]]:
        """Returns the images of each pack. A line with another value than the name of a pack loses it."""
        packs: dict[str, list[str]] = {}
        for image, line in self.lines.items():
            name = line.get(PACKED)
            if isinstance(name, str) and NAME.fullmatch(name):
                packs.setdefault(name, []).append(image)
            elif name is not None:
                self._unpack([image])
        return packs

    def _unpack(self, images: Iterable[str]) -> None:
        for image in images:
            self.lines[image] = {key: value for key, value in self.lines[image].items() if key != PACKED}

    def _is_whole(self, name: str, images: Iterable[str]) -> bool:
        path, expected = self.part.out / name, self._checksums(images)
        if not path.is_file():
            return False
        return self.verified.state_of(path, _total(expected), lambda: _compared(path, expected)) == 'whole'

    def _checksums(self, images: Iterable[str]) -> list[Any]:
        """Returns the sorted checksums of all outputs of images."""
        found = (self.lines[image].get(CHECKSUMS) for image in images)
        return sorted(
            (value for values in found for value in (values if isinstance(values, list) else [values])), key=str
        )

    def kept(self, done: Collection[str], images: Collection[str]) -> set[str]:
        """Returns the images that stay finished. Forgets the others, and packs of which one has to be made again.

        Args:
            done: the finished images.
            images: all images of this run.
        """
        open_again = {self.lines[i].get(PACKED) for i in images if i in self.lines and i not in done} - {None}
        for image, line in list(self.lines.items()):
            if line.get(PACKED) in open_again or (PACKED not in line and image not in done):
                del self.lines[image]
        self.number = self._free_number()
        return {image for image in done if image in self.lines}

    def is_packed(self, image: str) -> bool:
        """Returns whether the outputs of an image are in a pack."""
        return PACKED in self.lines.get(image, {})

    def begin(self) -> None:
        """Removes packs that no line names. A killed run leaves them. The manifest must have been written."""
        named = set(self._packs())
        for path in own_packs(self.part):
            if path.name not in named:
                path.unlink()

    def staged(self) -> list[Path]:
        """Returns the files in the staging folder of the images that wait for their pack."""
        return [file for staged in self.waiting.values() for file in staged.files]

    @property
    def next(self) -> Path:
        """Path of the next pack."""
        return self.part.out / f'{_label(self.part)}-{self.number:05d}.{self.kind}'

    def _free_number(self) -> int:
        """Returns the number of the next pack. It reads all lines, which would be too slow for each pack."""
        numbers = (NAME.fullmatch(name) for name in self._packs())
        return max((int(match[2]) + 1 for match in numbers if match[1] == _label(self.part)), default=0)

    def add(self, staged: Staged) -> None:
        """Adds a finished image, whose line is recorded, and writes a pack if it is complete.

        Raises:
            OSError: the pack cannot be written. The image stays recorded.
        """
        self._wait(staged)
        if len(self.waiting) >= MOST_IMAGES or self.size >= MOST_BYTES:
            self.write()

    def take(self, found: Iterable[Staged]) -> None:
        """Adds the finished images among these that are not in a pack. A killed run has left them."""
        for staged in found:
            if not self.is_packed(staged.image):
                self._wait(staged)

    def _wait(self, staged: Staged) -> None:
        self.waiting[staged.image] = staged
        self.size += sum(file.stat().st_size for file in staged.files)

    def write(self) -> None:
        """Writes the images that wait to a pack and records it."""
        if not self.waiting:
            return
        path = self.next
        write_container(
            path, [pair for one in self.waiting.values() for pair in zip(one.names, one.files, strict=True)]
        )
        state = file_state(path)
        for image in self.waiting:
            self.lines[image] = {**self.lines[image], PACKED: path.name}
        append_lines(self.journal, [self.lines[image] for image in self.waiting])
        self.number += 1
        self.verified.add(path, state, _total(self._checksums(self.waiting)))
        for staged in self.waiting.values():
            for file in staged.files:
                file.unlink(missing_ok=True)
        self.waiting, self.size = {}, 0


def own_packs(part: Part) -> list[Path]:
    """Returns the packs of a part of the job in the output folder: those of its shard, or all, also merged ones."""
    found = ((path, NAME.fullmatch(path.name)) for path in part.out.glob('pack-*'))
    return sorted(path for path, match in found if match and (part.shard is None or match[1] == _label(part)))


def _label(part: Part) -> str:
    return f'pack-{part.shard.label}' if part.shard else 'pack'


def _total(checksums: Iterable[Any]) -> int:
    return zlib.crc32(repr(list(checksums)).encode())


def _compared(path: Path, expected: list[Any]) -> str:
    """Returns 'whole' if the members of a pack have the expected checksums, else 'damaged'."""
    try:
        found = [checksum(read_member(member)) for member in list_container(path).members.values()]
    except (DataError, OSError):
        return 'damaged'
    return 'whole' if Counter(found) == Counter(expected) else 'damaged'
