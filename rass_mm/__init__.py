"""Segmentation of low-quality images with a diffusion backbone, as a plugin of mmsegmentation.

Importing this package registers the segmentation side (models, data sets, transforms, hooks), so that
`custom_imports = dict(imports=['rass_mm'], allow_failed_imports=False)` is all a user of mmseg writes.
Nothing of mmagic is imported here: a broken restoration stack must never break segmentation.
"""

from rass_mm.errors import InstallationError
from rass_mm.version import __version__
from rass_mm_cli import doctor

try:
    from rass_mm import compat

    compat.prepare()
    from rass_mm.config import config_path
    from rass_mm.config.doors import close_doors

    close_doors()
    from rass_mm import datasets, degradation, engine, segmentation  # noqa: F401  (register on import)
    from rass_mm.datasets.classes import follow_in_runner

    follow_in_runner()
except Exception as error:  # a broken library may raise anything: OSError for a shared object, AttributeError, ...
    explained = doctor.explain(error)
    if explained is None:
        raise
    raise InstallationError(explained) from error

__all__ = ['__version__', 'config_path']
