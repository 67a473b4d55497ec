"""Writes an exported model: the network in a format, compared with the model in PyTorch, and its metadata."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.export.formats import Format, Task, format_module
from rass_mm.export.metadata import (
    AGAIN,
    FORMATS,
    METADATA,
    SEGMENTOR,
    WEIGHTS,
    Checked,
    File,
    Metadata,
    Parity,
    check_files,
)
from rass_mm.export.networks import example_window
from rass_mm.files.atomic import write_text
from rass_mm.files.hashing import file_sha256
from rass_mm.files.new_folder import OTHER, new_folder
from rass_mm.files.schemas import checked, read_json
from rass_mm.versions import recorded_versions

logger = logging.getLogger(__name__)

MOST_DIFFERENT = {'float32': 1e-3, 'float16': 0.05, 'bfloat16': 0.25}
"""Largest relative difference of a network from the model in PyTorch, for each dtype of the weights."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export.

    Args:
        format: 'openvino', 'onnx' or 'pt2'.
        dtype: dtype of the weights: 'float32', 'bfloat16', 'float16', or 'int8', which also quantises activations.
        window: side of the window in pixels; None uses that of the model.

    Raises:
        ConfigError: the format or the dtype is unknown, or the format does not support the dtype.
    """

    format: str
    dtype: str = 'float32'
    window: int | None = None

    def __post_init__(self) -> None:
        for name, known in (('format', FORMATS), ('dtype', WEIGHTS)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f'{name} is {value!r}, but it must be one of {", ".join(known)}.')
        if self.format == 'pt2' and self.dtype == 'int8':
            raise ConfigError('The format pt2 has no int8. Use the format openvino or onnx.')

    @property
    def computed(self) -> str:
        """Dtype in which the network is prepared. In the other formats, the runtime chooses the dtype."""
        return self.dtype if self.format == 'pt2' else 'float32'

    def request(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values that identify an export of a model, which `source` identifies."""
        return json.loads(json.dumps({**asdict(self), 'source': dict(source)}))


def earlier_export(out: Path, request: Mapping[str, Any]) -> Metadata | None:
    """Returns the metadata of an earlier export of the same model with the same options, or None.

    Raises:
        ConfigError: `out` exists and is something else, or a damaged export.
    """
    if not out.exists():
        return None
    other = f'{out} {OTHER}'
    metadata = read_json(out / METADATA, Checked, other, ConfigError)
    if metadata['request'] != request:
        raise ConfigError(f'{other} It contains an export of another model, or with other options.')
    try:
        check_files(out, metadata)
    except CheckpointError as error:
        raise ConfigError(f'{error} Remove {out} first.') from None
    return metadata


def write_export(
    network: nn.Module,
    facts: Mapping[str, Any],
    out: str | os.PathLike,
    options: ExportOptions,
    expected: np.ndarray,
    request: Mapping[str, Any],
    provenance: Mapping[str, Any],
    calibration: Sequence[np.ndarray] = (),
) -> Metadata:
    """Writes an exported model to a new folder.

    Args:
        network: a network of `rass_mm.export.networks`, prepared for `options.computed`. It loses its weights.
        facts: entries of the metadata that describe the model.
        out: the folder. It must not exist.
        options: see `ExportOptions`.
        expected: output of the model in PyTorch for an example window, (1, C, h, w), see `expected_output`.
        request: values that identify the export, see `earlier_export`.
        provenance: where the weights come from.
        calibration: inputs of the network for 'int8', (1, 3, h, w) float32 each.

    Returns:
        The metadata.

    Raises:
        ConfigError: the network cannot be exported, its window is not suitable, or `out` exists.
        CheckpointError: the network differs from the model, or returns values that are not finite.
        InstallationError: a library of the format is not installed.
        DataError: another command writes to the folder.
    """
    out, module = Path(out), format_module(options.format)
    with new_folder(out) as folder:
        example = example_window(expected.shape[2:])
        with torch.no_grad():
            found = _written(module, Task(network, example, options.dtype, calibration), options.format, folder)
        network.to('meta')  # frees memory for the runtime's weights
        parity = compared(module.load(folder, options.dtype).run(example.numpy()), expected, facts['kind'])
        _check_parity(parity, options.dtype)
        metadata = {
            **{**facts, **found, 'format': options.format, 'dtype': options.dtype},
            **{'input': list(example.shape), 'output': list(expected.shape)},
            **{'request': dict(request), 'provenance': dict(provenance), 'parity': parity},
            **{'files': _described(folder), 'versions': {**recorded_versions(), **module.versions()}},
        }
        metadata = json.loads(json.dumps(metadata))
        checked(metadata, Checked, METADATA, AGAIN, ConfigError)
        write_text(folder / METADATA, json.dumps(metadata, indent=1) + '\n')
    return metadata


def _check_parity(parity: Parity, dtype: str) -> None:
    logger.info('Relative difference from the model in PyTorch: %.1e', parity['relative'])
    if not isfinite(parity['relative']):
        raise CheckpointError(
            f'The exported network returns values that are not finite, with weights in {dtype}. Nothing was written. '
            'Use another precision (--dtype).'
        )
    if parity['relative'] > MOST_DIFFERENT.get(dtype, inf):
        raise CheckpointError(
            f'The exported network differs from the model by {parity["relative"]:.1e}, but at most '
            f'{MOST_DIFFERENT[dtype]} is allowed with weights in {dtype}. Nothing was written. Use another format, '
            'another precision or another version of the libraries.'
        )


def _described(folder: Path) -> dict[str, File]:
    """Returns the size and the hash of each file of a network."""
    files = sorted(folder.iterdir())
    return {file.name: {'bytes': file.stat().st_size, 'sha256': file_sha256(file)} for file in files}


def _written(module: Format, task: Task, name: str, folder: Path) -> dict[str, Any]:
    """Writes the network and turns errors of the converter into a ConfigError."""
    try:
        return module.write(task, folder)
    except (ConfigError, OSError, MemoryError):
        raise
    except Exception as error:  # converters raise errors of many classes
        lines = str(error).strip().splitlines() or ['']
        raise ConfigError(
            f'The network cannot be exported to {name} ({type(error).__name__}: {lines[0][:300]}). Use another format.'
        ) from error


def compared(result: np.ndarray, expected: np.ndarray, kind: str) -> Parity:
    """Compares the output (1, C, h, w) of an exported network with that of the model."""
    relative = float(np.abs(result - expected).max() / np.abs(expected).max())
    labels = None
    if kind == SEGMENTOR and expected.shape[1] > 1:
        labels = float((result.argmax(1) == expected.argmax(1)).mean())
    return {'relative': relative, 'labels': labels}
