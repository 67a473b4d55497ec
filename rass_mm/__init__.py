"""Segmentation of low-quality images with a diffusion backbone, as a plugin for mmsegmentation.

Importing this package registers its models, data sets, transforms and hooks for segmentation. An mmseg config therefore
needs only `custom_imports = dict(imports=['rass_mm'], allow_failed_imports=False)`. mmagic, which only restoration
needs, is not imported here, so segmentation works even if mmagic is missing or broken. Without the extra
`segmentation`, nothing is registered, and restoring photos works. `config_path`, `load_segmentor` and `load_restorer`
are imported on first use.
"""

import functools
import importlib
from typing import Any

from rass_mm.errors import InstallationError
from rass_mm.version import __version__
from rass_mm_cli import doctor, extras, start

__all__ = ['PhotoRestorer', 'Segmentor', '__version__', 'config_path', 'load_restorer', 'load_segmentor', 'register']
LAZY = {
    'PhotoRestorer': 'rass_mm.inference.restorer',
    'Segmentor': 'rass_mm.inference.loading',
    'config_path': 'rass_mm.config',
    'load_restorer': 'rass_mm.inference.restorer',
    'load_segmentor': 'rass_mm.inference.loading',
}
"""Names that are imported on first use, and their modules."""


def __getattr__(name: str) -> Any:
    if name == 'load_segmentor':
        require('rass_mm.load_segmentor')
    if name in LAZY:
        return getattr(importlib.import_module(LAZY[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def require(purpose: str) -> None:
    """Checks that the extra `segmentation` is installed.

    Args:
        purpose: what needs it, for the message.

    Raises:
        InstallationError: it is not installed.
    """
    lacking = extras.lacking(purpose)
    if lacking:
        raise InstallationError(lacking)


@functools.cache
def register() -> None:
    """Registers the plugin with mmsegmentation. Importing the package calls it, except in commands without the plugin.

    Raises:
        InstallationError: an installed library is missing or broken. The message names the command that repairs it.
    """
    require('The plugin for mmsegmentation')
    try:
        from rass_mm import compat

        compat.prepare()
        from rass_mm.config.building import adapt_builders
        from rass_mm.config.doors import close_doors

        close_doors()
        adapt_builders()
        from rass_mm import datasets, segmentation  # noqa: F401  (register on import)
        from rass_mm.degradation import transforms  # noqa: F401  (registers on import)
        from rass_mm.engine import (  # noqa: F401  (register on import, and make mmengine's loaders safe)
            checkpoints,
            finite,
            loop,
            parameter_groups,
            remote,
            schedule,
            seeding,
            tracker_backends,
        )
        from rass_mm.segmentation.entry_points import adapt_entry_points

        adapt_entry_points()
    except Exception as error:  # a broken library may raise any error, e.g. OSError for a shared object
        explained = doctor.explain(error)
        if explained is None:
            raise
        raise InstallationError(explained) from error


if start.registers_plugin() and extras.has_segmentation():
    register()
