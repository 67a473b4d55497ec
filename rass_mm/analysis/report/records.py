"""The files a report is made of: found, read and checked."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rass_mm.errors import DataError

NAMED = 'metrics.json'
"""Name of the files that are records for certain; other JSON files of a folder are records if they say so."""
KINDS = {
    'test': ('config', 'protocol', 'metrics', 'command'),
    'robustness': ('name', 'seed', 'data', 'runs', 'points'),
    'benchmark': ('command', 'size', 'batch', 'iterations', 'environment', 'variants'),
}
"""Kind of record -> what it must hold."""
CURVE = 'rass_mm robustness curve'
"""Begin of the format of robustness records."""
SIGN = re.compile(rf'"kind":\s*"({"|".join(KINDS)})"|"format":\s*"{CURVE}')


@dataclass(frozen=True)
class Record:
    """One file of results.

    Args:
        path: the file.
        content: what it holds.
        name: the row's name, if the user gave one.
    """

    path: Path
    content: Mapping[str, Any]
    name: str | None = None

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return kind_of(self.content)


def read_records(paths: Sequence[str]) -> list[Record]:
    """Reads files, and folders with their subfolders, in the given order.

    Args:
        paths: each `PATH` or `NAME=PATH`; a path that exists is never split.

    Raises:
        DataError: nothing is there, or a file is unreadable, given twice, or of an unknown kind.
    """
    records: list[Record] = []
    for given in paths:
        name, path = (None, Path(given)) if Path(given).exists() else _named(given)
        if not path.exists():
            raise DataError(f'{path} does not exist. Name a record, a folder that holds some, or NAME=PATH.')
        files = list(_files_below(path)) if path.is_dir() else [path]
        if not files:
            raise DataError(f'{path} holds no record: no {NAMED} of a test and no JSON of a benchmark.')
        for file in files:
            records.append(_read(file, name if len(files) == 1 else name and f'{name}: {file.parent.name}'))
    _refuse_twice(records)
    return records


def _named(given: str) -> tuple[str | None, Path]:
    name, separator, path = given.partition('=')
    return (name, Path(path)) if separator else (None, Path(given))


def _files_below(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob('*.json')):
        if file.name == NAMED:
            yield file
        elif file.is_file() and SIGN.search(file.read_text(encoding='utf-8', errors='replace')):
            # Known by its text, so that a damaged record is an error and a foreign file is none.
            yield file


def _read(path: Path, name: str | None) -> Record:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise DataError(f'{path} cannot be read as JSON ({error}). Measure again, or leave it out.') from None
    kind = kind_of(content)
    if kind not in KINDS:
        raise DataError(
            f'{path} has the kind {kind!r}; a report knows {", ".join(KINDS)}. Is it a record, and of this version? '
            f'If not, measure again with this version, or leave it out.'
        )
    missing = [key for key in KINDS[kind] if key not in content]
    if missing:
        raise DataError(f'{path} is a record of the kind {kind!r}, but lacks {", ".join(missing)}. Measure again.')
    return Record(path, content, name)


def _refuse_twice(records: Sequence[Record]) -> None:
    seen: dict[str, Record] = {}
    for record in records:
        other = seen.setdefault(json.dumps(record.content, sort_keys=True), record)
        if other is not record:
            twice = 'is given twice' if other.path.resolve() == record.path.resolve() else f'is a copy of {other.path}'
            raise DataError(f'{record.path} {twice}. Name every record once.')


def kind_of(content: Any) -> str | None:
    """What a file says it is; None if it says nothing."""
    if not isinstance(content, dict):
        return None
    if str(content.get('format')).startswith(CURVE):
        return 'robustness'
    return content['kind'] if isinstance(content.get('kind'), str) else None
