"""Check that a path is a regular file, before it is opened: opening a pipe can wait forever."""

import os

from rass_mm.errors import DataError, RassError


def is_special(path: str | os.PathLike) -> bool:
    """Returns whether a path is a folder, a pipe, a socket or a device. A missing path is none of them."""
    return os.path.exists(path) and not os.path.isfile(path)


def check_regular(
    path: str | os.PathLike, fix: str = 'Pass an image file.', error: type[RassError] = DataError
) -> None:
    """Checks that a path is a file or missing.

    Args:
        path: the path.
        fix: a sentence for the end of the message.
        error: the class of errors to raise.

    Raises:
        RassError: of the given class, if the path is a folder, a pipe or a device.
    """
    if is_special(path):
        raise error(f'{os.fspath(path)} is not a file, but a folder, a pipe or a device. {fix}')
