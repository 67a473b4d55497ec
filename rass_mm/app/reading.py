"""Reads uploads with the checked readers of the commands. Messages name the upload and not its temporary folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rass_mm.app.limits import Limits
from rass_mm.errors import DataError, RassError
from rass_mm.files.images import Picture, read_picture
from rass_mm.inference.photos import read_bgr


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Context manager. Errors of the block contain the name of the file in place of its path."""
    try:
        yield
    except RassError as error:
        raise type(error)(str(error).replace(str(path), path.name)) from error


def upload_picture(path: Path, limits: Limits) -> Picture:
    """Reads an upload like `rass-mm restore`.

    Raises:
        DataError: the file is too large, or cannot be read, see `read_picture`.
    """
    with named(path):
        _check(path, limits)
        return read_picture(path, limits.max_pixels)


def upload_bgr(path: Path, limits: Limits, backend: str = 'cv2') -> np.ndarray:
    """Reads an upload like `rass-mm segment`, as (H, W, 3) uint8 BGR.

    Args:
        path: the file.
        limits: limits on the size.
        backend: image decoder of the segmentor.

    Raises:
        DataError: the file is too large, or cannot be read, see `read_bgr`.
    """
    with named(path):
        _check(path, limits)
        return read_bgr(path, limits.max_pixels, backend)


def _check(path: Path, limits: Limits) -> None:
    if not path.is_file():
        raise DataError(f'{path.name} is no longer stored. Uploads are kept for {limits.keep:g} minutes. Add it again.')
    limits.check_size(path)
