"""mmagic plugin: registers the SCR restorer and its losses, packing, metrics and training components with mmagic.

Configs import it with `custom_imports = dict(imports=['rass_mm', 'rass_mm.restoration'], allow_failed_imports=False)`.
"""

from rass_mm import compat
from rass_mm.errors import InstallationError
from rass_mm_cli import doctor

try:
    compat.prepare_mmagic()
    from mmagic.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    from rass_mm.restoration import (  # noqa: F401  (registers)
        hooks,
        identity,
        losses,
        metrics,
        optimization,
        packing,
        pictures,
        prompts,
    )
    from rass_mm.restoration.scr import SCRRestorer
except ImportError as error:
    raise InstallationError(doctor.explain_restoration(error)) from error

__all__ = ['SCRRestorer']
