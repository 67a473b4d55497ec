"""Limits on uploads."""

from dataclasses import dataclass
from pathlib import Path

from rass_mm.errors import ConfigError, DataError
from rass_mm.inference.capacity import pixel_count

MEGABYTE = 10**6


@dataclass(frozen=True)
class Limits:
    """Limits on uploads.

    Args:
        max_pixels: largest number of pixels of an image.
        max_megabytes: largest size of a file.
        max_files: largest number of files in a folder.
        keep: minutes after which uploads and results are removed.
        max_stored: megabytes of uploads and results of all users, above which uploads are refused.

    Raises:
        ConfigError: a limit is not positive.
    """

    max_pixels: int = 16_000_000
    max_megabytes: int = 50
    max_files: int = 100
    keep: float = 60.0
    max_stored: int = 10_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ConfigError(f'{name} is {value}, but it must be greater than 0.')

    def described(self) -> str:
        """Describes the limits of one image in a few words."""
        return f'at most {pixel_count(self.max_pixels)} and {self.max_megabytes} MB'

    def check_size(self, path: Path) -> None:
        """Raises a DataError if a file is too large."""
        size = path.stat().st_size
        if size > self.max_megabytes * MEGABYTE:
            raise DataError(
                f'{path.name} has {size / MEGABYTE:.1f} MB, but at most {self.max_megabytes} MB are accepted. '
                'Reduce the image.'
            )

    def check_count(self, count: int) -> None:
        """Raises a DataError if the number of files is 0 or too large."""
        if not count:
            raise DataError('No images are given. Add the images of a folder first.')
        if count > self.max_files:
            raise DataError(f'There are {count} files, but at most {self.max_files} are accepted at a time.')
