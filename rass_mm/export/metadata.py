"""Metadata of an exported model, which describe how to run it without the code and the weights of its training."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, FiniteFloat, PositiveInt
from typing_extensions import TypedDict

from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.files.hashing import content_hash, file_sha256
from rass_mm.files.regular import check_regular
from rass_mm.files.schemas import read_json

METADATA = 'metadata.json'
FORMATS = ('openvino', 'onnx', 'pt2')
OPENED = {'openvino': ('model.xml', 'model.bin'), 'onnx': ('model.onnx',), 'pt2': ('model.pt2',)}
"""Files that each format opens in any case."""
BACKENDS = ('openvino', 'onnx')
"""Formats that `segment` and `restore` run."""
WEIGHTS = ('float32', 'bfloat16', 'float16', 'int8')
SEGMENTOR, RESTORER = 'segmentor', 'restorer'
AGAIN = 'Export the model again with rass-mm export.'

Text = Annotated[str, Field(min_length=1)]
Side = Annotated[int, Field(ge=1, le=2**16)]
Sides = Annotated[list[Side], Field(min_length=2, max_length=2)]
Shape = Annotated[list[Side], Field(min_length=4, max_length=4)]
Channels = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
Level = Annotated[int, Field(ge=0, le=255)]


class Preprocessing(TypedDict):
    """Conversion of an image to the input of the network: (value - mean) / std, with values in 0..255.

    `padding` is the converted value of the pixels that are added on the right and at the bottom of an image whose sides
    are no multiples of `multiple`, or smaller than the window. None repeats the image in a mirror.
    """

    channels: Literal['RGB', 'BGR']
    mean: Channels
    std: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=3, max_length=3)]
    padding: Channels | None
    multiple: PositiveInt


class Step(TypedDict):
    """Config of a step of a test pipeline, with further keys for its settings."""

    type: Text


class Classes(TypedDict):
    """Labels of a segmentor.

    `threshold` is the probability above which a network with one channel predicts class 1, else None. `scores` is
    whether the output contains sums of mask probabilities (Mask2Former) instead of logits. `blend` weights windows
    where they overlap. `pipeline` contains the configs of the steps of the test pipeline.
    """

    names: Annotated[list[str], Field(min_length=1)]
    palette: list[Annotated[list[Level], Field(min_length=3, max_length=3)]]
    threshold: FiniteFloat | None
    scores: bool
    align_corners: bool
    blend: Literal['mean', 'ramp']
    pipeline: list[Step]


class Parity(TypedDict):
    """Comparison with the model in PyTorch on one window.

    `relative` is the largest difference divided by the largest value. `labels` is the share of equal labels.
    """

    relative: Annotated[FiniteFloat, Field(ge=0)]
    labels: Annotated[float, Field(ge=0, le=1)] | None


class File(TypedDict):
    """Size and hash of a file of the network."""

    bytes: PositiveInt
    sha256: Annotated[str, Field(pattern='^[0-9a-f]{64}$')]


class Metadata(TypedDict):
    """Content of `metadata.json`."""

    kind: Literal['segmentor', 'restorer']
    model: Text
    format: Literal['openvino', 'onnx', 'pt2']
    dtype: Literal['float32', 'bfloat16', 'float16', 'int8']
    opset: NotRequired[PositiveInt]
    input: Shape
    output: Shape
    stride: Sides
    preprocessing: Preprocessing
    classes: NotRequired[Classes]
    request: dict[str, Any]
    provenance: dict[str, Any]
    parity: Parity
    files: Annotated[dict[Annotated[str, Field(pattern=r'^model(\.\w+)+$')], File], Field(min_length=1)]
    versions: dict[str, str]


def _consistent(content: Metadata) -> Metadata:
    (*batch, height, width), classes = content['input'], content.get('classes')
    channels = content['output'][1]
    if batch != [1, 3] or content['output'] != [1, channels, height, width]:
        raise ValueError('metadata with an input of shape [1, 3, h, w] and an output of shape [1, C, h, w]')
    if (classes is not None) != (content['kind'] == SEGMENTOR):
        raise ValueError('metadata with classes for a segmentor only')
    if classes is None and channels != 3:
        raise ValueError('metadata of a restorer with an output of 3 channels')
    if any(step > side for step, side in zip(content['stride'], (height, width), strict=True)):
        raise ValueError('metadata with a stride that is at most the window')
    if content['preprocessing']['multiple'] > min(height, width):
        raise ValueError('metadata with a multiple that is at most the window')
    opened = OPENED[content['format']]
    if not set(opened) <= set(content['files']):
        raise ValueError(f'metadata with the files {" and ".join(opened)}, which the format opens')
    if classes is not None:
        count = 2 if channels == 1 else channels
        if not len(classes['names']) == len(classes['palette']) == count:
            raise ValueError(f'metadata with {count} class names and colours')
        if (classes['threshold'] is not None) != (channels == 1):
            raise ValueError('metadata with a threshold for one channel only')
    return content


Checked = Annotated[Metadata, AfterValidator(_consistent)]


@dataclass(frozen=True)
class Exported:
    """An exported model.

    Args:
        folder: folder with the files of the network.
        metadata: content of its `metadata.json`.
    """

    folder: Path
    metadata: Metadata

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of a window in pixels."""
        height, width = self.metadata['input'][2:]
        return height, width

    def identity(self) -> dict[str, Any]:
        """Returns the values that identify the exported network in a manifest."""
        hashes = {name: file['sha256'][:16] for name, file in self.metadata['files'].items()}
        described = content_hash(self.folder / METADATA)
        return {'backend': self.metadata['format'], 'files': hashes, 'metadata': described}


def read_exported(path: str | os.PathLike, backend: str | None = None, kind: str | None = None) -> Exported:
    """Reads the metadata of an exported model and checks its files.

    Args:
        path: the folder of the exported model, or a file in it.
        backend: the expected format, one of `BACKENDS`; None accepts all of them.
        kind: the expected kind of model, 'segmentor' or 'restorer'; None accepts both.

    Raises:
        ConfigError: the folder does not contain an exported model, or one of another format or kind.
        CheckpointError: the metadata cannot be used, or a file is missing or damaged.
    """
    folder = Path(path).expanduser()
    folder = folder.parent if folder.is_file() else folder
    file = folder / METADATA
    if not file.is_file():
        raise ConfigError(
            f'{path} is not an exported model, because there is no {file}. Remove --backend to use a model that is '
            'not exported, or export it with rass-mm export.'
        )
    metadata = read_json(file, Checked, AGAIN, CheckpointError)
    expected = [backend] if backend else BACKENDS
    if metadata['format'] not in expected:
        raise ConfigError(
            f'{folder} contains a model in the format {metadata["format"]!r}, but the backend is '
            f'{" or ".join(map(repr, expected))}. Pass --backend {metadata["format"]}, or export the model with '
            f'--format {expected[0]}.'
        )
    if metadata['kind'] != (kind or metadata['kind']):
        command = 'segment' if metadata['kind'] == SEGMENTOR else 'restore'
        raise ConfigError(f'{folder} contains a {metadata["kind"]}, not a {kind}. Use rass-mm {command}.')
    check_files(folder, metadata)
    return Exported(folder, metadata)


def check_files(folder: Path, metadata: Metadata) -> None:
    """Checks the sizes and the hashes of the files of an exported network.

    Raises:
        CheckpointError: a file is missing or no regular file, or differs from the one that was exported.
    """
    for name, expected in metadata['files'].items():
        file = folder / name
        check_regular(file, AGAIN, CheckpointError)
        if not file.is_file():
            raise CheckpointError(f'{file} is missing. {AGAIN}')
        if file.stat().st_size != expected['bytes'] or file_sha256(file) != expected['sha256']:
            raise CheckpointError(f'{file} is damaged: it differs from the file that {METADATA} describes. {AGAIN}')
