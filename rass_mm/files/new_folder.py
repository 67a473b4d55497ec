"""Writes a folder that must not exist yet, in one step."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rass_mm.errors import ConfigError
from rass_mm.files.atomic import atomic_folder
from rass_mm.files.locks import held_beside

OTHER = 'already exists and is not overwritten. Choose another name or remove it.'


def check_new(out: Path) -> None:
    """Raises a ConfigError if a path exists, also as a broken link."""
    if out.exists() or out.is_symlink():
        raise ConfigError(f'{out} {OTHER}')


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Context manager. Holds the lock of `out`, and yields a folder that is renamed to it if the block succeeds.

    Raises:
        ConfigError: `out` exists.
        DataError: another command writes to it.
    """
    with held_beside(out):
        check_new(out)
        with atomic_folder(out) as folder:
            yield folder
