"""The configs that come with the package."""

from pathlib import Path

from rass_mm.errors import ConfigError

PACKAGE = Path(__file__).resolve().parent.parent


def config_path(name: str = '') -> Path:
    """The folder of the shipped configs, or one of them, e.g. `config_path('rass/rass_scenes_tiny.py')`.

    Raises:
        ConfigError: there is no such config; the message lists those there are.
    """
    root = next(
        (place for place in (PACKAGE / 'configs', PACKAGE.parent / 'configs') if place.is_dir()), PACKAGE / 'configs'
    )
    path = root / name
    if not path.exists():
        known = sorted(str(file.relative_to(root)) for file in root.rglob('*.py') if '_base_' not in file.parts)
        raise ConfigError(f'No config {name!r} in {root}. There are: {", ".join(known)}.')
    return path
