"""Files of a folder that a user may have meant, for error messages."""

import os
from pathlib import Path

from rass_mm.files.packs.schema import ADAPTER, PACK, WEIGHTS


def newest_files(folder: str | os.PathLike, suffixes: tuple[str, ...], most: int = 3) -> list[Path]:
    """Returns the newest files with one of the suffixes directly in a folder, the newest first.

    Args:
        folder: the folder. If it cannot be listed, the result is empty.
        suffixes: endings of the names.
        most: largest number of files.
    """
    try:
        found = [file for file in Path(folder).iterdir() if file.name.endswith(suffixes) and file.is_file()]
        return sorted(found, key=lambda file: (-file.stat().st_mtime_ns, file.name))[:most]
    except OSError:
        return []


def files_in(folder: str | os.PathLike, suffixes: tuple[str, ...]) -> str:
    """Returns a sentence that names the newest files with one of the suffixes in a folder."""
    found = newest_files(folder, suffixes)
    if not found:
        return f'It contains no {" or ".join(suffixes)} file.'
    named = f'Pass a file in it, e.g. {", ".join(map(str, found))} (the newest first).'
    if any(file.name in (WEIGHTS, ADAPTER) for file in found):
        return f'If it is a model pack, its {PACK} is missing: copy the folder again. Otherwise: {named}'
    return named
