"""Files of a pack that segmentors and restorers have in common: base, metrics, manifest and model card."""

import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rass_mm.diffusion.base import MODEL_INDEX, DiffusionBase
from rass_mm.diffusion.base_terms import FETCHED, SHIPPED, TRAINING, base_source
from rass_mm.diffusion.base_weights import IDENTIFIED, weight_files
from rass_mm.errors import ConfigError, PackError, printable, shown
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import file_sha256
from rass_mm.files.packs.reading import Pack, open_pack
from rass_mm.files.packs.schema import BASE, CARD, FORMAT, METRICS, PACK, PART, Checked, PackBase
from rass_mm.files.schemas import checked, read_json
from rass_mm.files.test_record import TestRecord
from rass_mm.inference.packs.card import model_card
from rass_mm.versions import recorded_versions
from rass_mm_cli.licences import NOT_STATED, conflicts

logger = logging.getLogger(__name__)

FIX = 'Pass the metrics.json that rass-mm test wrote for this model.'
CONFIGS = ('.json', '.txt')
LICENCE = 'LICENSE.txt'
"""Text of the licence of a base, which is handed over with its weights."""


def described_base(base: DiffusionBase | None, included: bool, old: Pack | None) -> PackBase | None:
    """Returns the entry of a base in a manifest.

    Args:
        base: the base, or None.
        included: whether the pack contains it.
        old: the pack that the model was loaded from, or None. The base keeps the name that it has there.
    """
    if base is None:
        return None
    identity, known = base.identity, old and old.manifest['base']
    if known and all(known[key] == identity[key] for key in ('config', 'weights')):
        return {**known, 'included': included}
    source = base_source(base.folder)
    return {**{key: identity[key] for key in ('name', 'config', 'weights')}, 'source': source, 'included': included}


def copy_base(base: DiffusionBase, folder: Path) -> None:
    """Copies the configs, the tokenizer and the safetensors weights of a base to `base/` in the folder of a pack."""
    target = folder / BASE
    (target / 'tokenizer').mkdir(parents=True)
    copied = {name: name for name in (MODEL_INDEX, TRAINING, FETCHED, SHIPPED)}
    copied |= {file.name: LICENCE for file in sorted(base.folder.glob('LICENSE*'), reverse=True)}
    for source, name in copied.items():
        if (base.folder / source).is_file():
            shutil.copyfile(base.folder / source, target / name)
    for part in (*IDENTIFIED, 'scheduler', 'tokenizer'):
        files = [file for file in (base.folder / part).glob('*') if file.suffix in CONFIGS and _is_plain(file)]
        files += weight_files(base.folder, part)[0] if part in IDENTIFIED else []
        (target / part).mkdir(exist_ok=True)
        for file in files:
            shutil.copyfile(file, target / part / file.name)


def _is_plain(file: Path) -> bool:
    return file.is_file() and re.fullmatch(PART, file.name) is not None


def read_metrics(path: str | os.PathLike | None, weights: str | None) -> dict[str, Any] | None:
    """Reads the record of a test.

    Args:
        path: the `metrics.json`, or None.
        weights: `content_hash` of the checkpoint, with which that in the record is compared, or None.

    Raises:
        ConfigError: the file is not the record of a test, or of a test of other weights.
    """
    if path is None:
        return None
    record = read_json(path, TestRecord, FIX, ConfigError)
    tested = record.get('checkpoint_hash')
    if tested and weights and tested != weights:
        raise ConfigError(
            f'{path} belongs to other weights: the hash of its checkpoint is {tested}, but that of the packed one is '
            f'{weights}. {FIX}'
        )
    return record


def finish_pack(folder: Path, out: Path, facts: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
    """Writes metrics, model card and, last, the manifest of a pack, and opens the pack.

    Args:
        folder: the folder with all other files.
        out: its final path, for messages.
        facts: content of the manifest without `format`, `files`, `warnings` and `versions`.
        metrics: the record of a test, or None.

    Raises:
        PackError: the result is not a valid pack.
    """
    if metrics is not None:
        write_text(folder / METRICS, json.dumps(metrics, indent=2) + '\n')
    warnings = conflicts(facts['licence'], facts['terms'])
    for warning in warnings:
        logger.warning('%s: %s', out, warning)
    content = {'format': FORMAT, **facts, 'warnings': warnings, 'versions': recorded_versions()}
    content = json.loads(json.dumps({**content, 'files': _listed(folder)}))
    write_text(folder / CARD, model_card(content, metrics))
    content['files'] = _listed(folder)
    checked(content, Checked, PACK, 'Change this value where the model has it from, or report this fault.', PackError)
    write_text(folder / PACK, json.dumps(content, indent=1) + '\n')
    open_pack(folder)


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(file for file in folder.rglob('*') if file.is_file())
    return {
        file.relative_to(folder).as_posix(): {'bytes': file.stat().st_size, 'sha256': file_sha256(file)}
        for file in files
    }


def kept_metrics(given: str | os.PathLike | None, old: Pack | None) -> str | os.PathLike | None:
    """Returns the file of the metrics: the given one, else that of the pack that is packed again."""
    return old.path(METRICS) if given is None and old and METRICS in old.manifest['files'] else given


def kept_licence(given: str, old: Pack | None) -> str:
    """Returns the licence: the given one, else that of the pack that is packed again.

    Raises:
        ConfigError: the licence is not one line of text.
    """
    if not given.strip() or len(given) > 1000 or given != printable(' '.join(given.split())):
        raise ConfigError(
            f'The licence {shown(given)} cannot be used. Give its name in one line of at most 1,000 characters, e.g. '
            '--licence "CC BY-NC 4.0".'
        )
    return old.manifest['licence'] if old and given == NOT_STATED else given
