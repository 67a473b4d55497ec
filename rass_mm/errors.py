"""Exceptions of this package. Each message states what is wrong, what was expected and how to fix it.

The command line prints the message without a traceback. Programs can catch `RassError` for all of them.
"""


class RassError(Exception):
    """Base class of the exceptions of this package."""


class BaseFolderError(RassError, ValueError):
    """The Stable Diffusion folder is missing, incomplete, or different from the one the config requires."""


class AdapterError(RassError, ValueError):
    """A LoRA adapter cannot be added, merged, saved or loaded."""


class CheckpointError(RassError, ValueError):
    """A checkpoint is unsafe, damaged, or made for another base, class list or architecture."""


class DataError(RassError, ValueError):
    """An image, a label file or a data folder cannot be used."""


class TrainingError(DataError):
    """Training diverged: a loss or a weight is NaN or infinite."""


class ConfigError(RassError, ValueError):
    """A config requests something that does not exist, or its settings are inconsistent."""


class InstallationError(RassError, ImportError):
    """A required package is missing, broken or has an incompatible version."""
