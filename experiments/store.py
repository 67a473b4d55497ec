"""Reads and writes the records of a data set: a JSON-lines file with one run per line, sorted by system and seed."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.commands import WORK, Run
from experiments.locks import locked
from experiments.systems import ROOT, SETTINGS, recipe_version
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_text

Record = dict[str, Any]
RESULTS = ROOT / 'results'
BASES = RESULTS / 'bases.json'


def records_file(setting: str) -> Path:
    """Returns the file with the records of a data set."""
    return RESULTS / f'{setting}.jsonl'


def counts_file(setting: str, system: str, seed: int, test: str) -> Path:
    """Returns the file with the pixel counts of a test."""
    return RESULTS / 'counts' / setting / f'{system}-{seed}-{test}.npz'


def read_records(setting: str) -> list[Record]:
    """Reads all records of a data set in file order; an absent file has no records.

    Raises:
        DataError: a line is damaged, or its record has another recipe version.
    """
    file = records_file(setting)
    if not file.is_file():
        return []
    lines, version = file.read_text().splitlines(), recipe_version(setting)
    return [_parsed(line, f'{file}:{number}', version) for number, line in enumerate(lines, 1)]


def find_record(run: Run) -> Record | None:
    """Returns the record of a run, or None if there is none."""
    return next((record for record in read_records(run.setting) if _key(record) == run.key), None)


def line_of(run: Run) -> str:
    """Returns the file and line of the record of a run, for messages."""
    keys = [_key(record) for record in read_records(run.setting)]
    return f'{records_file(run.setting)}:{keys.index(run.key) + 1}'


def add_records(setting: str, records: Sequence[Record]) -> None:
    """Adds records to the file of a data set, replacing those with the same system and seed.

    The file is written atomically and by one worker at a time.
    """
    with locked(WORK / setting):
        merged = {_key(record): record for record in [*read_records(setting), *records]}
        lines = [json.dumps(merged[key]) + '\n' for key in sorted(merged)]
        write_text(records_file(setting), ''.join(lines))


def read_bases() -> dict[str, dict[str, Any]]:
    """Reads the results of `judge-base` by data set and base."""
    return json.loads(BASES.read_text()) if BASES.is_file() else {}


def write_bases(setting: str, found: dict[str, Any]) -> None:
    """Replaces the results of `judge-base` for a data set."""
    with locked(WORK / 'bases'):
        merged = {**read_bases(), setting: found}
        ordered = {name: merged[name] for name in SETTINGS if name in merged}
        write_text(BASES, json.dumps(ordered, indent=1) + '\n')


def _key(record: Record) -> tuple[str, int]:
    return record['system'], record['seed']


def _parsed(line: str, place: str, version: int) -> Record:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f'{place} is not valid JSON ({error}). Restore the file from the repository.') from None
    if record.get('recipe_version') != version:
        raise DataError(
            f'{place} ({record.get("system")}, seed {record.get("seed")}) belongs to recipe version '
            f'{record.get("recipe_version", "unknown")}; the setting belongs to version {version}. Delete the line to '
            f'run the system again.'
        )
    return record
