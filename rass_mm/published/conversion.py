"""Results of conversions, the reports that are written with them, and checks of the results of earlier conversions."""

import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired

from safetensors import SafetensorError, safe_open
from torch import Tensor
from typing_extensions import TypedDict

from rass_mm.diffusion.adapter_files import content_hash, read_adapter
from rass_mm.engine.trained_state import read_provenance
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.files.adapter_header import TERMS
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import file_sha256
from rass_mm.files.schemas import read_json
from rass_mm.files.walking import walk

logger = logging.getLogger(__name__)

CHECKPOINT, BASE, REPORT = 'rass.safetensors', 'base', 'conversion.json'


class Report(TypedDict):
    """Content of the report of a conversion: what was asked for, and the result.

    `files` contains the SHA-256 of each file in the folder of a RASS model. Earlier versions did not write it.
    """

    request: dict[str, Any]
    kind: str
    written: list[str]
    used: dict[str, str]
    left_out: dict[str, str]
    notes: list[str]
    files: NotRequired[dict[str, str]]


@dataclass(frozen=True)
class Conversion:
    """Result of a conversion.

    Args:
        kind: 'osediff', 'scr' or 'rass'.
        written: paths of the output files and folders.
        used: published tensor name -> new name.
        left_out: published tensor name -> reason why the tensor was not converted.
        notes: remarks for the user.
    """

    kind: str
    written: list[str]
    used: dict[str, str]
    left_out: dict[str, str]
    notes: list[str]

    def summary(self) -> str:
        """Returns a summary of the conversion for the user, in a few lines."""
        reasons = Counter(self.left_out.values())
        lines = [f'{self.kind}: {len(self.used)} tensors used, {len(self.left_out)} left out']
        lines += [f'  left out, {count}: {reason}' for reason, count in reasons.items()]
        lines += [f'  note: {note}' for note in self.notes]
        return '\n'.join([*lines, *(f'  wrote {path}' for path in self.written)])


def read_earlier(out: Path, request: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Returns the report of the earlier conversion that wrote, or was writing, `out`; None if there is none.

    Args:
        out: the file or folder to write.
        request: the source and the options of this conversion. None accepts any.

    Raises:
        ConfigError: `out` exists without a report, or the report is damaged or describes another conversion.
    """
    path = out / REPORT if out.is_dir() else report_beside(out)
    fix = 'already exists and is not overwritten. Choose another name or remove it.'
    if not path.exists():
        if out.exists():
            raise ConfigError(f'{out} {fix}')
        return None
    earlier = dict(read_json(path, Report, f'{path} {fix}', ConfigError))
    if request is not None and earlier['request'] != json.loads(json.dumps(request)):
        raise ConfigError(
            f'{out if out.exists() else path} already exists and is not overwritten. It was converted from another '
            'file, or with other options. Choose another name or remove it.'
        )
    return earlier


def report_beside(out: Path) -> Path:
    """Returns the path of the report of a conversion to a file."""
    return out.with_suffix('.' + REPORT)


def write_report(path: Path, result: Conversion, request: dict[str, Any], folder: Path | None = None) -> None:
    """Writes the report of a conversion.

    Args:
        path: the file to write.
        result: the result.
        request: the source and the options of the conversion, JSON-serializable.
        folder: the complete folder of a RASS model, whose files are hashed; None for a file.
    """
    record = {'source': request['source'], 'request': request, **asdict(result)}
    if folder is not None:
        record['files'] = {file.relative_to(folder).as_posix(): file_sha256(file) for file in walk(folder)}
    write_text(path, json.dumps(record, indent=1))


def check_adapter(out: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Checks that an existing adapter file is the one that `write_adapter` would write.

    Args:
        out: the file.
        header: the header without the hash.
        tensors: name in the file -> tensor.

    Raises:
        ConfigError: the file is damaged, or has another header or content.
    """
    try:
        found = read_adapter(out).header
    except AdapterError as error:
        raise ConfigError(_changed(out, str(error).partition('\n')[0].rstrip('.'))) from None
    wanted = json.loads(json.dumps({**header, 'hash': content_hash(header, tensors)}))
    if TERMS not in found:  # written before licences were recorded
        wanted.pop(TERMS, None)
    differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
    if differing:
        raise ConfigError(_changed(out, f'its header has another {differing[0]}'))


def kept_folder(earlier: dict[str, Any], out: str | os.PathLike, classes: Sequence[str]) -> Conversion:
    """Returns the earlier conversion to a folder, after its files were checked.

    Args:
        earlier: the report in the folder.
        out: the folder.
        classes: the class names that this conversion would record in the checkpoint.

    Raises:
        ConfigError: a file is missing or was changed, or the checkpoint has other class names.
    """
    out = Path(out)
    if 'files' not in earlier:
        logger.warning('%s has no hashes of its files, which earlier versions did not record. They are not read.', out)
    for name in (CHECKPOINT, *earlier.get('files', {})):
        if not (out / name).is_file():
            raise ConfigError(_changed(out, f'{name} is missing'))
    for name, digest in earlier.get('files', {}).items():
        if file_sha256(out / name) != digest:
            raise ConfigError(_changed(out, f'{name} was changed'))
    try:
        with safe_open(out / CHECKPOINT, 'pt') as file:
            record = read_provenance(file.get_tensor('_extra_state'), str(out / CHECKPOINT))
    except SafetensorError as error:
        raise ConfigError(_changed(out, f'{CHECKPOINT} is damaged ({error})')) from None
    if list(record['classes']) != list(classes):
        raise ConfigError(_changed(out, f'{CHECKPOINT} has the class names of another --config'))
    return Conversion(**{name: earlier[name] for name in ('kind', 'written', 'used', 'left_out', 'notes')})


def _changed(out: Path, reason: str) -> str:
    return (
        f'{out} already exists, but is not what this conversion writes: {reason}. It is not overwritten. Remove it and '
        'run the same command again, or choose another name.'
    )
