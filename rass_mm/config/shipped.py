"""Paths and names of the configs that are shipped with the package."""

from pathlib import Path

from rass_mm.errors import ConfigError
from rass_mm_cli.parser import nearest

PACKAGE = Path(__file__).resolve().parent.parent


def config_path(name: str = '') -> Path:
    """Returns the path of a shipped config, e.g. `config_path('rass/rass_scenes_tiny.py')`.

    Without a name, returns the folder of the shipped configs.

    Raises:
        ConfigError: the config does not exist. The message lists all shipped configs.
    """
    root = _root()
    path = root / name
    if not path.exists():
        known = config_names()
        raise ConfigError(f'No config {name!r} in {root}.{nearest(name, known)} Available: {", ".join(known)}.')
    return path


def config_names() -> list[str]:
    """Returns the sorted names of the shipped configs, e.g. 'rass/rass_scenes_tiny.py'."""
    root = _root()
    return sorted(file.relative_to(root).as_posix() for file in root.rglob('*.py') if '_base_' not in file.parts)


def _root() -> Path:
    """Returns the folder of the configs: inside an installed package, or beside the package in a checkout."""
    places = (PACKAGE / 'configs', PACKAGE.parent / 'configs')
    return next((place for place in places if place.is_dir()), places[0])
