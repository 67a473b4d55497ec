"""Base of a model pack: the one inside it, or one with the same identity on this machine."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rass_mm.diffusion.adapter_files import Adapter, AdapterSource, is_adapter, read_adapter
from rass_mm.diffusion.base import CONFIGS, SMALL_BASE, how_to_get, read_base
from rass_mm.errors import BaseFolderError, RassError
from rass_mm.files.packs.reading import Pack, is_pack, open_pack
from rass_mm.files.packs.schema import ADAPTER, BASE, RESTORER, PackBase
from rass_mm_cli.bases import places_of, shelf_folder

Bases = str | os.PathLike | Sequence[str | os.PathLike]
IDENTIFYING = ('config', 'weights')


def pack_base(pack: Pack) -> Path | None:
    """Returns the folder of the base of a pack, or None if its model has no base.

    A base that is not in the pack is looked up by its name, in the places of `rass_mm_cli.bases.places_of`, and then by
    its hash, in the folders in `$RASS_MM_BASES` and in the package.

    Raises:
        BaseFolderError: no folder has the identity of the base. The message contains the ways to get it.
    """
    wanted = pack.manifest['base']
    if wanted is None:
        return None
    if wanted['included']:
        return pack.path(BASE)
    looked = list(dict.fromkeys(_places(wanted)))
    found = next((place for place in looked if _is_base(place, wanted)), None)
    if found is not None:
        return found
    listed = '\n'.join(f'  {place.absolute()}{_state(place)}' for place in looked)
    raise BaseFolderError(
        f'The pack {pack.folder} needs the base {wanted["name"]!r} (config {wanted["config"]}, weights '
        f'{wanted["weights"]}), which it does not contain and which was not found. Looked for it in:\n{listed}\n'
        f'Pass its folder with --base (in Python: base=...), or ask the author of the pack for one that was made with '
        f'--with-base.{_known_source(wanted)}'
    )


def _known_source(wanted: PackBase) -> str:
    source = wanted['source']
    return (
        ''
        if source is None
        else f' It has the name of a published base: rass-mm fetch {source}.\n' + how_to_get(places_of(source)[0])
    )


def _places(wanted: PackBase) -> Iterator[Path]:
    for name in (wanted['source'], Path(wanted['name']).name, f'bases/{Path(wanted["name"]).name}'):
        if name:
            yield from places_of(name)
    shelf = shelf_folder()
    if shelf is not None and shelf.is_dir():
        yield from sorted(shelf.iterdir())
    yield SMALL_BASE


def _is_base(place: Path, wanted: PackBase) -> bool:
    if not (place / CONFIGS['unet']).is_file():
        return False
    with suppress(RassError, OSError):  # a folder that cannot be read is not the base
        identity = read_base(place).identity
        return all(identity[key] == wanted[key] for key in IDENTIFYING)
    return False


def _state(place: Path) -> str:
    return ' (another base)' if (place / CONFIGS['unet']).is_file() else ''


def restorer_files(adapter: AdapterSource, base: Bases | None) -> tuple[AdapterSource, Bases | None]:
    """Returns the adapter file and the base of a restorer that is given by its adapter or by its pack.

    Args:
        adapter: an adapter file, its content, or the folder of a pack.
        base: a base folder or several; None uses the base of the pack.

    Raises:
        AdapterError: the adapter is neither an adapter file nor a pack, and no base is given.
        PackError: the folder is not the pack of a restorer, or was changed.
        BaseFolderError: the base of the pack was not found.
    """
    if isinstance(adapter, Adapter):
        return adapter, base
    if not is_pack(adapter):
        if base is None and not is_adapter(adapter):
            read_adapter(adapter)  # its error says what the path is; callers would ask for a base
        return adapter, base
    pack = open_pack(adapter, RESTORER)
    return pack.path(ADAPTER), pack_base(pack) if base is None else base
