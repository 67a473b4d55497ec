"""Finds, reads and checks the record files of a report."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rass_mm.analysis.schemas import Benchmark, Robustness
from rass_mm.errors import DataError
from rass_mm.files.schemas import checked, read_json
from rass_mm.files.test_record import TestRecord

NAMED = 'metrics.json'
"""Name of files that are always records; other JSON files in a folder are records if their contents match `SIGN`."""
KINDS = {'test': TestRecord, 'robustness': Robustness, 'benchmark': Benchmark}
"""Maps each kind of record to the type of its content."""
AGAIN = 'Run its command again, or omit the file.'
CURVE = 'rass_mm robustness curve'
"""Prefix of the `format` of robustness records."""
SIGN = re.compile(rf'"kind":\s*"({"|".join(KINDS)})"|"format":\s*"{CURVE}')


@dataclass(frozen=True)
class Record:
    """Results from one JSON file.

    Args:
        path: the file.
        content: the parsed JSON.
        name: row name given by the user; None uses a default name.
    """

    path: Path
    content: Mapping[str, Any]
    name: str | None = None

    @property
    def kind(self) -> str:
        """Kind of the record, one of `KINDS`."""
        return kind_of(self.content)


def read_records(paths: Sequence[str]) -> list[Record]:
    """Reads records from files and, recursively, from folders, in the given order.

    Args:
        paths: each is `PATH` or `NAME=PATH`, where NAME is a row name. Text that is an existing path is not split.

    Raises:
        DataError: a path does not exist, a folder has no record files, or a file is unreadable, is given twice, has
            an unknown kind or lacks required keys.
    """
    records: list[Record] = []
    for given in paths:
        name, path = (None, Path(given)) if Path(given).exists() else _named(given)
        if not path.exists():
            raise DataError(f'{path} does not exist. Pass a record, a folder of records, or NAME=PATH.')
        files = list(_files_below(path)) if path.is_dir() else [path]
        if not files:
            raise DataError(
                f'{path} contains no record files. Pass a folder with the {NAMED} of a test or the JSON file of a '
                'benchmark.'
            )
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
            # Matched by its text, so that a damaged record is an error and an unrelated file is skipped.
            yield file


def _read(path: Path, name: str | None) -> Record:
    content = read_json(path, Any, AGAIN)
    kind = kind_of(content)
    if kind not in KINDS:
        raise DataError(
            f'{path} has the kind {kind!r}, but a report supports only {", ".join(KINDS)}. Run its command again with '
            f'this version, or omit the file.'
        )
    checked(content, KINDS[kind], f'{path} is not a complete record of kind {kind!r}', AGAIN)
    return Record(path, content, name)


def _refuse_twice(records: Sequence[Record]) -> None:
    seen: dict[str, Record] = {}
    for record in records:
        other = seen.setdefault(json.dumps(record.content, sort_keys=True), record)
        if other is not record:
            twice = 'is given twice' if other.path.resolve() == record.path.resolve() else f'is a copy of {other.path}'
            raise DataError(f'{record.path} {twice}. Pass each record once.')


def kind_of(content: Any) -> str | None:
    """Returns the kind of record that parsed JSON content declares, or None if it declares none."""
    if not isinstance(content, dict):
        return None
    if str(content.get('format')).startswith(CURVE):
        return 'robustness'
    return content['kind'] if isinstance(content.get('kind'), str) else None
