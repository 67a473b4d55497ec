"""Learning rates of the systems of the second data sets, as found by `rate_search.py`."""

import json
from pathlib import Path
from typing import Any

from experiments.locks import locked
from experiments.system import ROOT, SECOND, System
from rass_mm.files.atomic import write_text

FILE = ROOT / 'results' / 'rates.jsonl'
RATES = (8e-4, 2e-3, 5e-3)
"""The candidates, the same for all systems."""
LOCK = Path('work_dirs/experiments/rates')


def rated_as(system: System) -> str | None:
    """Returns the name of the system whose rate is used, or None if nothing is trained."""
    return None if system.trained_as else system.rate_of or system.name


def read_rates(setting: str) -> dict[str, dict[float, dict[str, Any]]]:
    """Reads the records of the search on a data set by system and rate."""
    found: dict[str, dict[float, dict[str, Any]]] = {}
    for line in FILE.read_text().splitlines() if FILE.is_file() else ():
        record = json.loads(line)
        if record['setting'] == setting:
            found.setdefault(record['system'], {})[record['rate']] = record
    return found


def add_rate(record: dict[str, Any]) -> None:
    """Adds the record of a candidate to the file. Several processes may add records side by side."""
    with locked(LOCK):
        lines = FILE.read_text().splitlines() if FILE.is_file() else []
        write_text(FILE, '\n'.join(sorted([*lines, json.dumps(record)])) + '\n')


def chosen_rate(setting: str, system: System) -> float | None:
    """Returns the candidate with the best score; None if the search is not complete or the config's rate is used."""
    name = rated_as(system)
    if setting not in SECOND or name is None:
        return None
    tried = read_rates(setting).get(name, {})
    return max(RATES, key=lambda rate: tried[rate]['score']) if tried.keys() >= set(RATES) else None


def rate_override(setting: str, system: System) -> dict[str, float]:
    """Returns the override that sets the learning rate, or none before the search."""
    rate = chosen_rate(setting, system)
    return {} if rate is None else {rate_key(system): rate}


def rate_key(system: System) -> str:
    """Returns the dotted key of the learning rate in the config of a system."""
    return f'optim_wrapper.{"generator." if system.restores else ""}optimizer.lr'
