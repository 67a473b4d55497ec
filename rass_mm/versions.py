"""Versions of the packages that are written to records."""

import importlib.metadata

from rass_mm.version import __version__
from rass_mm_cli.families import distribution, is_installed

RECORDED_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmsegmentation', 'diffusers', 'peft')


def recorded_versions() -> dict[str, str]:
    """Returns the versions of this package and of the packages that affect a checkpoint, if they are installed."""
    versions = {'rass_mm': __version__}
    for name in map(distribution, RECORDED_PACKAGES):
        if is_installed(name):
            versions[name] = importlib.metadata.version(name)
    return versions
