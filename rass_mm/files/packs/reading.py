"""Opens a model pack: reads its manifest, and compares all of its files with it before any of them is used."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rass_mm.errors import CheckpointError, PackError, clipped
from rass_mm.files.hashing import file_sha256
from rass_mm.files.packs.schema import ADAPTERS, BASE, CARD, PACK, Checked, Manifest
from rass_mm.files.regular import check_regular
from rass_mm.files.schemas import read_json
from rass_mm.files.tensor_headers import header_length

logger = logging.getLogger(__name__)

AGAIN = 'Copy the folder again, or ask its author for it.'
LARGEST_MANIFEST = 4 * 2**20
FOLDERS = (BASE, ADAPTERS)
"""Folders in which files are looked up by pattern, so that all their files must be listed."""


@dataclass(frozen=True)
class Pack:
    """A model pack whose files agree with its manifest.

    Args:
        folder: the folder.
        manifest: content of its `pack.json`.
    """

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Returns the path of a file of the pack."""
        return self.folder / name


def is_pack(path: str | os.PathLike) -> bool:
    """Returns whether a path is a folder with the manifest of a pack."""
    folder = Path(path).expanduser()
    return folder.is_dir() and os.path.lexists(folder / PACK)


def open_pack(path: str | os.PathLike, kind: str | None = None) -> Pack:
    """Reads the manifest of a pack and checks all files that it lists: names, sizes and SHA-256.

    Args:
        path: the folder.
        kind: the expected kind of model, 'segmentor' or 'restorer'; None accepts both.

    Raises:
        PackError: the folder is not a pack, contains another kind of model, or a file is missing, changed, a link, or
            not listed. The message names it.
    """
    pack = read_pack(path)
    found = pack.manifest['kind']
    if kind is not None and found != kind:
        raise PackError(
            f'{pack.folder} is the pack of a {found}, not of a {kind}. Use rass-mm '
            f'{"restore" if found == "restorer" else "segment"} (in Python: rass_mm.load_{found}).'
        )
    for name, expected in pack.manifest['files'].items():
        _check_file(pack.folder, name, expected['bytes'], expected['sha256'])
    for name in _unlisted(pack):
        raise PackError(f'{pack.folder / name} is not listed in {PACK}, so it was added later. Remove it. {AGAIN}')
    return pack


def read_pack(path: str | os.PathLike) -> Pack:
    """Reads the manifest of a pack without opening the other files.

    Raises:
        PackError: the folder is not a pack, or its manifest cannot be used.
    """
    folder = Path(path).expanduser()
    file = folder / PACK
    if not folder.is_dir() or not os.path.lexists(file):
        raise PackError(f'{path} is not a model pack, because there is no {file}. Make one with rass-mm pack.')
    _check_no_link(folder, PACK)
    check_regular(file, AGAIN, PackError)
    size = file.stat().st_size
    if size > LARGEST_MANIFEST:
        raise PackError(f'{file} has {size:,} bytes, but at most {LARGEST_MANIFEST:,} are allowed. {AGAIN}')
    return Pack(folder, read_json(file, Checked, AGAIN, PackError))


def _check_no_link(folder: Path, name: str) -> None:
    path = folder
    for part in name.split('/'):
        path = path / part
        if path.is_symlink():
            raise PackError(f'{path} is a symbolic link, and packs contain only files. {AGAIN}')


def _check_file(folder: Path, name: str, size: int, sha256: str) -> None:
    file = folder / name
    _check_no_link(folder, name)
    check_regular(file, AGAIN, PackError)
    if not file.is_file():
        raise PackError(f'{file} is missing. {AGAIN}')
    if file.stat().st_size == size and file_sha256(file) == sha256:
        if name.endswith('.safetensors'):
            _check_header(file)
        return
    if name == CARD:  # text for readers, which a hub and its users extend
        logger.warning('%s was changed after the pack was made.', file)
        return
    raise PackError(f'{file} was changed or damaged: it differs from the file that {PACK} describes. {AGAIN}')


def _check_header(file: Path) -> None:
    try:
        header_length(file)
    except CheckpointError as error:
        raise PackError(f'{error} {AGAIN}') from None


def _unlisted(pack: Pack) -> Iterator[str]:
    """Yields the files in the folders of a pack that its manifest does not list."""
    listed = set(pack.manifest['files'])
    for top in FOLDERS:
        if pack.path(top).is_symlink():
            yield top
        for place, folders, files in os.walk(pack.path(top)):
            links = [name for name in folders if os.path.islink(os.path.join(place, name))]
            for name in (*files, *links):
                found = Path(place, name).relative_to(pack.folder).as_posix()
                if found not in listed:
                    yield clipped(found, 200)
