"""Exceptions of this package, and words of their messages.

Each message states what is wrong, what was expected and how to fix it. The command line prints the message
without a traceback. Programs can catch `RassError` to handle all of them.
"""

import re

CONTROLS = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]')
"""Characters that move the cursor, set colours or reverse the text in a terminal."""


class RassError(Exception):
    """Base class of the exceptions of this package."""


class BaseFolderError(RassError, ValueError):
    """Raised if the Stable Diffusion folder is missing, incomplete, or different from the one the config requires."""


class AdapterError(RassError, ValueError):
    """Raised if a LoRA adapter cannot be added, merged, saved or loaded."""


class CheckpointError(RassError, ValueError):
    """Raised if a checkpoint is unsafe, damaged, or made for another base, class list or architecture."""


class PackError(CheckpointError):
    """Raised if a model pack is incomplete, changed or unsafe, or contains another kind of model."""


class DataError(RassError, ValueError):
    """Raised if an image, a label file or a data folder cannot be used."""


class TrainingError(DataError):
    """Raised if training diverges, i.e. if a loss or a weight is NaN or infinite."""


class ConnectionLostError(RassError, RuntimeError):
    """Raised if another process of a distributed training has ended or does not answer."""


class ConfigError(RassError, ValueError):
    """Raised if a config requests something that does not exist, or if its settings are inconsistent."""


class DownloadError(RassError, RuntimeError):
    """Raised if published files cannot be fetched, or are not the files that were expected."""


class InstallationError(RassError, ImportError):
    """Raised if a required package is missing, broken or has an incompatible version."""


def the_others(count: int, state: str) -> str:
    """Returns a sentence for the end of a message about faulty items: the others are e.g. 'restored'. Empty for 0."""
    if count == 0:
        return ''
    return f'The other one is {state}.' if count == 1 else f'The other {count} are {state}.'


def shown(value: object) -> str:
    """Returns the value for a message, see `clipped`. Python does not write integers of more than 4,300 digits."""
    try:
        return clipped(repr(value))
    except ValueError:
        return f'a value of the type {type(value).__name__} with too many digits'


def clipped(text: str, length: int = 60) -> str:
    """Returns a text for a message: in one line, with at most `length` characters."""
    text = ' '.join(text.split())
    return text if len(text) <= length else f'{text[: length - 3]}...'


def printable(text: str) -> str:
    """Returns a text with its control characters as escapes. Line ends and tabs stay.

    Names in files of others and answers of servers could otherwise change what a terminal shows.
    """
    return CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)
