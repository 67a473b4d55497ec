"""Error messages for `.py` configs that cannot be read."""

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rass_mm.config.frames import in_library
from rass_mm.errors import ConfigError, clipped

BOM = '\ufeff'
LONGEST = 300
"""Characters of the message of an error."""
_reading: ContextVar[tuple[str, ...]] = ContextVar('reading', default=())
"""Files that are being read in this thread: a config, and the chain of its bases."""


@contextmanager
def explained_reading(file: str | os.PathLike) -> Iterator[None]:
    """Context manager that turns an error while a `.py` config is read into a ConfigError with its file and line.

    It can be nested, for a config and its bases. The innermost file is named.

    Raises:
        ConfigError: the block raised an error or ended the program, or the config inherits from itself.
    """
    path = os.path.abspath(os.path.expanduser(file))
    above = _reading.get()
    if path in above[:-1]:
        raise ConfigError(f'{path} inherits from itself: {" -> ".join((*above, path))}. Remove one _base_.')
    token = _reading.set((*above, path))
    try:
        yield
    except ConfigError:
        raise
    except FileNotFoundError as error:
        missing = error.filename is None or os.path.abspath(error.filename) == path
        if missing and path not in above:
            raise  # a missing base, which is reported together with the config that needs it
        raise ConfigError(_explanation(path, error)) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(_explanation(path, error)) from error
    finally:
        _reading.reset(token)


def _explanation(path: str, error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        if BOM in str(error) or 'U+FEFF' in str(error):
            return f'{path}:1 begins with a byte order mark. Save the file as UTF-8 without a byte order mark (BOM).'
        return f'{path}:{error.lineno} is not valid Python: {error.msg}. Correct this line.'
    if isinstance(error, UnicodeDecodeError):
        line = error.object[: error.start].count(b'\n') + 1
        return f'{path}:{line} is not UTF-8 text ({error.reason}). Save the file with the encoding UTF-8.'
    if isinstance(error, RecursionError):
        return f'{path} is nested too deeply, or it inherits from itself. Simplify it.'
    place = _place(path, error)
    if place is not None:
        return f'{place} raises {type(error).__name__}: {_short(error)}. Correct this line.'
    return f'{path}: {_without_line(error)}'


def _without_line(error: BaseException) -> str:
    """Describes an error of mmengine, which does not have a line in the config."""
    text = _short(error)
    if isinstance(error, FileNotFoundError):
        return f'_base_ names a config that does not exist: {text}. Correct the path, which is relative to this config.'
    if isinstance(error, ImportError):
        return (
            f'custom_imports names a module that cannot be imported: {_short(error.__cause__ or error)}. Install it, '
            'add its folder to PYTHONPATH, or correct the name.'
        )
    twice = re.search(r'Duplicate keys: \{(.*)\}', str(error.args[0]) if error.args else '')
    if twice:
        keys = ', '.join(sorted(key.strip('\'" ') for key in twice[1].split(',')))
        return f'two configs in _base_ set the same keys ({keys}). Remove one of the two, or the keys in one of them.'
    reserved = re.search(r'(\w+) is reserved', text)
    if reserved:
        return f'the key {reserved[1]} is reserved by mmengine. Rename it.'
    inherits = re.search(r' in child config cannot inherit from base because (\S+) is a dict', str(error))
    if inherits:
        return (
            f'the config sets {inherits[1]} to a dict, but in its _base_ it is not one. Set the same kind of value, or '
            f'add _delete_=True to replace it.'
        )
    return f'the config cannot be read ({type(error).__name__}: {text}). Correct it.'


def _place(path: str, error: BaseException) -> str | None:
    """Returns the file and the line of the config, or of a module of the user, that raised the error."""
    for frame in traceback.extract_tb(error.__traceback__)[::-1]:
        if frame.filename == path or not in_library(frame.filename):
            return f'{frame.filename}:{frame.lineno}'
    return None


def _short(error: BaseException) -> str:
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return clipped(text.rstrip('. \n'), LONGEST)
