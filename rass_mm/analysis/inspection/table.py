"""Facts as a table for the terminal."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from rass_mm.analysis.inspection.facts import Facts
from rass_mm.errors import printable
from rass_mm_cli.licences import NOT_STATED

LABELS = {'training_data': 'training data', 'recipe_version': 'recipe version'}
SHOWN = 12


def facts_table(path: str, found: Facts) -> Table:
    """Returns a table with one row per fact."""
    table = Table(title=Text(printable(path)), title_justify='left', show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow='fold')
    for key, value in found.items():
        table.add_row(LABELS.get(key, key), Text(printable(shown(key, value))))
    return table


def shown(key: str, value: Any) -> str:
    """Returns a fact as text."""
    if value is None or value == [] or value == {}:
        return NOT_STATED if key != 'details' else ''
    if key == 'terms':
        return '\n'.join(_term(term) for term in value)
    if isinstance(value, Mapping):
        return '\n'.join(f'{name}: {_short(item)}' for name, item in value.items() if item is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        rest = f', ... ({len(value)} in total)' if len(value) > SHOWN else ''
        return ', '.join(map(str, value[:SHOWN])) + rest
    return str(value)


def _term(term: Mapping[str, Any]) -> str:
    limits = f' ({term["forbids"]})' if term['forbids'] else ''
    return f'{term["kind"]} {term["name"]}: {term["licence"]}{limits}'


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
