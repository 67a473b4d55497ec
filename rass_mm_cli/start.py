"""Faster start of a command: no plugin where it is not needed, no garbage collection during imports, stored help."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUGIN = 'RASS_MM_PLUGIN'
"""Environment variable: with the value 0, `import rass_mm` does not register the plugin for mmsegmentation.

It is set by commands that build no model from a config, for themselves and for the worker processes that they start.
Registration imports mmseg and mmdet.
"""
PAGES = Path(__file__).parent / 'help'
WIDTH = 80
"""Width of the terminal for which the help pages are written."""


def choose_plugin(needed: bool) -> None:
    """Sets whether `import rass_mm` registers the plugin in this process and in those that it starts."""
    if needed:
        os.environ.pop(PLUGIN, None)
    else:
        os.environ[PLUGIN] = '0'


@contextmanager
def kept_choice() -> Iterator[None]:
    """Context manager that restores the choice of `choose_plugin`, for programs that call `main` themselves."""
    before = os.environ.get(PLUGIN)
    try:
        yield
    finally:
        choose_plugin(before != '0')


def registers_plugin() -> bool:
    """Returns whether `import rass_mm` registers the plugin."""
    return os.environ.get(PLUGIN) != '0'


@contextmanager
def importing() -> Iterator[None]:
    """Context manager for the first import of the package. Inside the block, Python does not search for garbage cycles.

    Imports create several hundred thousand objects and almost no garbage, and the searches take a sixth of their time.
    After the block, the objects that exist then are left out of later searches.
    """
    if 'rass_mm' in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def help_page(name: str) -> str | None:
    """Returns the stored help page of a command, or None if it has none. `tools/write_help.py` writes the pages."""
    page = PAGES / f'{name}.txt'
    return page.read_text(encoding='utf-8') if page.is_file() else None
