"""The errors this package raises on purpose: each says what is wrong, what was expected and how to mend it.

The command line prints their message without a traceback; a program can catch `RassError` for all of them.
"""


class RassError(Exception):
    """Root of all deliberate errors of this package."""


class BaseFolderError(RassError, ValueError):
    """The Stable Diffusion folder is absent, incomplete or not what the config asks for."""


class AdapterError(RassError, ValueError):
    """A LoRA adapter cannot be added, merged, saved or loaded."""


class CheckpointError(RassError, ValueError):
    """A checkpoint is unsafe, damaged, or belongs to another base, class list or architecture."""


class DataError(RassError, ValueError):
    """An image, a label or a data folder is not usable."""


class ConfigError(RassError, ValueError):
    """A config asks for something that does not exist or does not fit together."""


class InstallationError(RassError, ImportError):
    """A package that the task needs is absent, broken or of a version that does not work."""
