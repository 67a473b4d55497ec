"""Doors of containers, the images in them, and what must be true after any command that read one."""

import io
import itertools
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from campaign.cases import Case
from campaign.doors import RESTORE
from PIL import Image

DOORS = {
    'make-lq': 'make-lq @ out --workers 1',
    'restore': f'restore @ out --adapter $FX/adapter.safetensors {RESTORE}',
    'make-lq in packs': 'make-lq @ out --workers 1 --pack tar',
    'segment': 'segment @ out --checkpoint $FX/resnet.pth',
}
"""Commands that read a container, whose name replaces `@`."""
EVIL = 'evil'
"""Part of all names that would be written outside of the output folder."""
Content = bytes | Callable[[Path], bytes]
"""Bytes of a container, or a function of the working directory that returns them."""


def picture(seed: int = 0, kind: str = 'PNG') -> bytes:
    """Returns a valid image file of 64x64 pixels."""
    pixels, buffer = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def made(content: Content, name: str) -> Callable[[Path, Path], None]:
    """Returns a function that writes a container in the working directory."""

    def prepare(folder: Path, kit: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content(folder))

    return prepare


def images_in(out: Path) -> int:
    """Returns the number of images in an output folder, as files and in packs."""
    packs = 0
    for path in out.glob('pack-*.tar'):
        with tarfile.open(path) as pack:
            packs += len(pack.getnames())
    return packs + len([path for path in out.rglob('*') if path.suffix in ('.png', '.jpg')])


def checked(least: int = 0, most: int | None = None) -> Callable[[Path], str | None]:
    """Returns a check: nothing is written elsewhere, and the number of images is in a range."""

    def check(folder: Path) -> str | None:
        places = (folder, folder.parent, folder.parent.parent, Path('/tmp'))
        strange = [path for place in places for path in place.iterdir() if EVIL in path.name]
        strange += [path for path in folder.iterdir() if path.name not in ('out', 'given.tar', 'given.parquet')]
        found = images_in(folder / 'out')
        if strange:
            return f'written outside of the output folder: {strange[0]}'
        if any(path.is_symlink() for path in folder.rglob('*')):
            return 'a link was made'
        if found < least or (most is not None and found > most):
            return f'{found} images in the output folder'
        return None

    return check


def turns() -> Iterator[tuple[str, ...]]:
    """Yields pairs of doors for one container after the other; make-lq, which needs no model, is always one."""
    for other in itertools.cycle(list(DOORS)[1:]):
        yield 'make-lq', other


def refused(
    group: str, name: str, content: Content, door: str, named: tuple[str, ...] = (), malicious: bool = True
) -> Case:
    """Returns the case of a container that must be refused, or whose images must all fail."""
    file = f'given.{"tar" if group == "tars" else "parquet"}'
    return Case(
        f'{group}/{name}/{door}',
        DOORS[door].replace('@', file),
        named=('given', *named),
        prepare=made(content, file),
        check=checked(most=0),
        malicious=malicious,
    )


def accepted(group: str, name: str, content: Content, door: str, count: int, malicious: bool = False) -> Case:
    """Returns the case of a valid container of `count` images."""
    file = f'given.{"tar" if group == "tars" else "parquet"}'
    return Case(
        f'{group}/{name}/{door}',
        DOORS[door].replace('@', file),
        ok=True,
        prepare=made(content, file),
        check=checked(least=count),
        malicious=malicious,
    )
