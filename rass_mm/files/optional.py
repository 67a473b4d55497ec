"""Import of modules that need optional libraries."""

import importlib
from types import ModuleType
from typing import Any

from rass_mm.errors import InstallationError
from rass_mm_cli import extras


def import_optional(module: str, purpose: str, extra: str = 'export') -> ModuleType | Any:
    """Imports a module of this package that needs optional libraries.

    Args:
        module: name of the module.
        purpose: what needs the libraries, for the message.
        extra: name of the extra that installs them.

    Raises:
        InstallationError: a library is not installed or cannot be imported.
    """
    lacking = extras.lacking(purpose) if extra == extras.SEGMENTATION else None
    if lacking:
        raise InstallationError(lacking)
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken library may raise errors other than ImportError
        raise InstallationError(
            f'{purpose} needs optional libraries that cannot be imported ({type(error).__name__}: {error}). Install '
            f'them with: pip install "rass_mm[{extra}]"'
        ) from error
