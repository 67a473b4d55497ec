"""Paths and names of the configs that are shipped with the package."""

from difflib import get_close_matches
from pathlib import Path

from rass_mm.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent
FILE_TYPES = ('.py', '.json', '.yaml', '.yml')
SUGGESTED = 3
"""Maximum number of similar names in a message."""


def config_path(name: str = '') -> Path:
    """Returns the path of a shipped config, e.g. `config_path('rass/rass_scenes_tiny.py')`.

    Without a name, returns the folder of the shipped configs.

    Raises:
        ConfigError: the config does not exist, or the name leads out of the folder. The message lists similar names of
            shipped configs and of config files in the folder of `name`, or all shipped configs if there are none.
    """
    root = _root()
    given = Path(name)
    outside = given.is_absolute() or '..' in given.parts
    if (root / name).exists() and not outside:
        return root / name
    fault = (
        f'{name} is not a shipped config' if given.exists() else f'No file {name}, and no shipped config of that name'
    )
    rule = f" Names of shipped configs are relative to {root} and do not contain '..'." if outside else ''
    raise ConfigError(f'{fault}.{rule}{_suggestions(name)}')


def config_names() -> list[str]:
    """Returns the sorted names of the shipped configs, e.g. 'rass/rass_scenes_tiny.py'."""
    root = _root()
    return sorted(file.relative_to(root).as_posix() for file in root.rglob('*.py') if '_base_' not in file.parts)


def _suggestions(name: str) -> str:
    """Returns a sentence with the similar names, the most similar one first, or with the names of all configs."""
    path, known = Path(name), config_names()
    files = path.parent.iterdir() if path.parent.is_dir() else ()
    beside = [file.name for file in files if file.suffix in FILE_TYPES and file.is_file()]
    found = [str(path.parent / file) for file in get_close_matches(path.name, beside, SUGGESTED)]
    found += get_close_matches(name, known, SUGGESTED)
    if not found:
        return f' Available: {", ".join(known)}.'
    others = list(dict.fromkeys(found))[1:SUGGESTED]
    return f' Did you mean {found[0]}?' + (f' Also similar: {", ".join(others)}.' if others else '')


def _root() -> Path:
    """Returns the folder of the configs: inside an installed package, or beside the package in a checkout."""
    places = (PACKAGE / 'configs', PACKAGE.parent / 'configs')
    return next((place for place in places if place.is_dir()), places[0])
