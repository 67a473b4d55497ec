"""Updates records to renamed configs: `python -m experiments migrate-records OLD [--ignore KEY ...]`.

OLD is a checkout in which the records match their configs, e.g. of `git worktree add ../old COMMIT`. Its records are
JSON-lines files (`results/<setting>.jsonl`) or, before those, one JSON per run (`results/<setting>/*-seed*.json`).

A record is updated if it was made with the current values of its system. Its hash must be that of its config in OLD,
and this config with the options of the record must resolve to the same values as the system. Only `config`,
`config_hash`, `options` and `commands` are replaced. `as_run` keeps the config and the hash of the run. If one record
fails these checks, nothing is written. No run is repeated.

`--ignore` lists keys that may differ because no result depends on them. `as_run` stores them too.
"""

import argparse
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from experiments.commands import Run
from experiments.record import config_hash
from experiments.store import Record, add_records, records_file, write_bases
from experiments.systems import SETTINGS, systems_of
from rass_mm.config import load_config
from rass_mm.degradation.versions import lq_steps, step_version
from rass_mm.errors import DataError

logger = logging.getLogger(__name__)


def migrate(old: Path, ignore: Sequence[str] = ()) -> None:
    """Copies the records of another checkout into this one, with the current configs and hashes.

    Raises:
        DataError: a record does not match its config in `old`, or the values of its system have changed.
    """
    found, problems = {}, []
    for setting in SETTINGS:
        found[setting] = []
        for record, one_per_file in _records(old, setting):
            problem = _problem(old, record, one_per_file, ignore)
            problems += [problem] if problem else []
            found[setting] += [] if problem else [_carried_over(record, ignore)]
    if problems:
        raise DataError('No record was written:\n' + '\n'.join(problems))
    for setting, records in found.items():
        if records:
            add_records(setting, records)
            logger.info('%s: %d records', records_file(setting), len(records))
    _migrate_bases(old)


def _records(old: Path, setting: str) -> Iterator[tuple[Record, bool]]:
    """Yields the records of a data set, and whether each has its own file."""
    results = old / 'experiments' / 'results'
    for file in sorted((results / setting).glob('*-seed*.json')):
        yield json.loads(file.read_text()), True
    lines = results / f'{setting}.jsonl'
    if lines.is_file():
        yield from ((json.loads(line), False) for line in lines.read_text().splitlines())


def _problem(old: Path, record: Record, one_per_file: bool, ignore: Sequence[str]) -> str | None:
    """Returns the reason why a record cannot be updated, or None if it can."""
    label = f'{record["setting"]} {record["system"]} seed {record["seed"]}'
    file, options = old / record['config'], _parsed(record['options'])
    known = hash_of_text(load_config(file)) if one_per_file else config_hash(load_config(file, options))
    if known != record['config_hash']:
        return f'{label}: its hash is {record["config_hash"]}, that of {file} is {known}'
    there, here = (_flat(config, ignore) for config in (load_config(file, options), _run(record).resolved()))
    different = sorted(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
    if different:
        return f'{label}: its row has other values now for {", ".join(different)}'
    return None


def hash_of_text(config: Config) -> str:
    """Returns the hash used by records with their own file: of the config without options and recipe version 1."""
    for step in lq_steps(list(config.values())):
        version, recipe = step_version(step), dict(step.pop('recipe', None) or {})
        recipe.pop('version', None)
        if version != 1:
            recipe['version'] = version
        if recipe:
            step['recipe'] = recipe
    return hashlib.sha256(config.pretty_text.encode()).hexdigest()[:16]


def _parsed(options: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args(['--cfg-options', *options]).cfg_options


def _run(record: Record) -> Run:
    (system,) = (s for s in systems_of(record['setting'], [record['system']]) if s.name == record['system'])
    return Run(record['setting'], system, record['seed'])


def _flat(config: Config, ignore: Sequence[str]) -> dict[str, str]:
    """Returns the values by dotted key as text that distinguishes tuples from lists and 1 from 1.0."""
    flat: dict[str, str] = {}

    def add(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, part in value.items():
                add(part, f'{key}.{name}' if key else name)
        elif isinstance(value, list) and value:
            for number, part in enumerate(value):
                add(part, f'{key}.{number}')
        else:
            flat[key] = repr(value)

    add(config.to_dict(), '')
    return {k: v for k, v in flat.items() if not any(f'{k}.'.startswith(f'{name}.') for name in ignore)}


def _carried_over(record: Record, ignore: Sequence[str]) -> Record:
    run = _run(record)
    as_run = {'config': record['config'], 'config_hash': record['config_hash'], **record.get('as_run', {})}
    ignored = sorted({*as_run.pop('ignored', []), *ignore})
    today = {
        'config': run.config,
        'config_hash': config_hash(run.resolved()),
        'options': run.options,
        'commands': run.commands,
        'as_run': {**as_run, **({'ignored': ignored} if ignored else {})},
    }
    return {**record, **today}


def _migrate_bases(old: Path) -> None:
    for setting in SETTINGS:
        file = old / 'experiments' / 'results' / setting / 'bases.json'
        if file.is_file():
            write_bases(setting, json.loads(file.read_text()))
