"""The configs that come with the package."""

from pathlib import Path

from rass_mm.errors import ConfigError
from rass_mm_cli.parser import nearest

PACKAGE = Path(__file__).resolve().parent.parent


def config_path(name: str = '') -> Path:
    """The folder of the shipped configs, or one of them, e.g. `config_path('rass/rass_scenes_tiny.py')`.

    Raises:
        ConfigError: there is no such config; the message lists those there are.
    """
    root = _root()
    path = root / name
    if not path.exists():
        known = config_names()
        raise ConfigError(f'No config {name!r} in {root}.{nearest(name, known)} There are: {", ".join(known)}.')
    return path


def config_names() -> list[str]:
    """Names of the shipped configs, sorted, e.g. 'rass/rass_scenes_tiny.py'."""
    root = _root()
    return sorted(file.relative_to(root).as_posix() for file in root.rglob('*.py') if '_base_' not in file.parts)


def _root() -> Path:
    """Where the configs are: in an installed package, else beside it in a checkout."""
    places = (PACKAGE / 'configs', PACKAGE.parent / 'configs')
    return next((place for place in places if place.is_dir()), places[0])
