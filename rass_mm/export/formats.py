"""Table of export formats. The libraries of a format are imported only when it is used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from rass_mm.files.optional import import_optional

INPUT, OUTPUT = 'images', 'result'
"""Names of the input and of the output of the exported network."""
MODULES = {
    'openvino': 'rass_mm.export.openvino_format',
    'onnx': 'rass_mm.export.onnx_format',
    'pt2': 'rass_mm.export.pt2_format',
}


@dataclass(frozen=True)
class Task:
    """Network to write.

    Args:
        network: the prepared network, which maps (1, 3, h, w) to (1, C, h, w) on the CPU.
        example: (1, 3, h, w) input.
        dtype: dtype of the weights, one of `WEIGHTS`.
        calibration: inputs of the network, (1, 3, h, w) float32 each, for 'int8'.
    """

    network: nn.Module
    example: Tensor
    dtype: str
    calibration: Sequence[np.ndarray] = ()


class Network(NamedTuple):
    """Loaded network.

    Args:
        run: function that maps (1, 3, h, w) float32 to (1, C, h, w) float32.
        shapes: shape of its input and shape of its output, as the network declares them. A side that is not fixed is
            not a positive integer.
    """

    run: Callable[[np.ndarray], np.ndarray]
    shapes: tuple[list[Any], list[Any]]


class Format(Protocol):
    """Interface of the module of a format."""

    def write(self, task: Task, folder: Path) -> dict[str, Any]:
        """Writes the files of a network to a folder and returns the entries of the metadata that the format adds."""

    def opened(self, folder: Path) -> set[str]:
        """Returns the paths, relative to the folder, of the files that `load` opens."""

    def load(self, folder: Path, dtype: str) -> Network:
        """Loads a network."""

    def versions(self) -> dict[str, str]:
        """Returns the versions of the libraries of the format."""


def format_module(name: str) -> Format:
    """Imports the module of a format.

    Raises:
        InstallationError: a library of the format is not installed or cannot be imported.
    """
    return import_optional(MODULES[name], f'The format {name!r}')
