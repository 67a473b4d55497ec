"""Writes the help page of each command to rass_mm_cli/help: python tools/write_help.py."""

import importlib
import os
import sys

from rass_mm_cli import doctor, start
from rass_mm_cli.main import parser_of
from rass_mm_cli.table import COMMANDS


def main() -> int:
    """Writes the pages and removes those of commands that no longer exist; returns 0."""
    os.environ['COLUMNS'] = str(start.WIDTH)
    start.PAGES.mkdir(exist_ok=True)
    stored = [name for name, command in COMMANDS.items() if command.module != doctor.__name__]
    for page in start.PAGES.glob('*.txt'):
        if page.stem not in stored:
            page.unlink()
    for name in stored:
        module = importlib.import_module(COMMANDS[name].module)
        (start.PAGES / f'{name}.txt').write_text(parser_of(name, module).format_help(), encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
