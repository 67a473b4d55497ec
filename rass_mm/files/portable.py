"""Names of files that Windows cannot have, and renaming while another program has the target open."""

import os
import re
import time
from pathlib import Path

DEVICES = re.compile(r'(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?', re.IGNORECASE | re.DOTALL)
"""Names that Windows takes for devices, in every folder and with any suffix."""
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
ATTEMPTS, PAUSE = 5, 0.2
"""Attempts to replace a file that is open on Windows, and seconds between them: virus scanners open new files."""


def is_windows() -> bool:
    """Returns whether this is Windows."""
    return os.name == 'nt'


def windows_fault(part: str) -> str | None:
    """Returns why Windows cannot have a file or folder of this name, as the end of a sentence, or None if it can.

    Args:
        part: name of a file or a folder, without the folders above it.
    """
    if DEVICES.fullmatch(part):
        return 'is the name of a device on Windows'
    if found := FORBIDDEN.search(part):
        return f'contains {found[0]!r}, which names on Windows do not'
    if part.endswith(('.', ' ')):
        return 'ends with a dot or a space, which Windows drops'
    return None


def replace(source: str | os.PathLike, target: str | os.PathLike) -> None:
    """Renames a file or folder to `target`, like `os.replace`. On Windows, waits for a second if the target is open.

    Raises:
        OSError: the target cannot be replaced. The error names the target.
    """
    for attempt in range(ATTEMPTS):
        try:
            os.replace(source, target)
            return
        except PermissionError as error:
            if not is_windows():
                raise
            if attempt == ATTEMPTS - 1:
                words = 'it is open in another program, or write-protected'
                raise PermissionError(error.errno, words, os.fspath(target)) from error
            time.sleep(PAUSE)


def linked_or_copied(source: Path, target: Path) -> None:
    """Makes `target` a link to a file, or a copy where links are not permitted, as for most users of Windows."""
    try:
        target.symlink_to(source)
    except OSError:
        target.write_bytes(source.read_bytes())
