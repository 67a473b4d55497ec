"""Reading of all images and labels of a data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rass_mm.datasets.check.listing import Sample
from rass_mm.datasets.loading import LoadImageStrict
from rass_mm.errors import DataError
from rass_mm.files.integrity import decode_fully
from rass_mm.parallel import run_jobs, watched

Size = tuple[int, int]
"""Width and height in pixels."""
FEW = 500
"""Number of samples up to which reading is faster than starting worker processes."""


@dataclass(frozen=True)
class Reading:
    """Contents of the files of one sample.

    Args:
        sample: the sample.
        faults: file -> reason why it cannot be used.
        sizes: file -> size, for readable files.
        pixels: label id as in the file -> number of pixels.
    """

    sample: Sample
    faults: dict[str, str]
    sizes: dict[str, Size]
    pixels: dict[int, int]


def read_samples(samples: list[Sample], workers: int, title: str) -> Iterator[Reading]:
    """Yields a reading of each sample in order of completion, and shows progress under `title`.

    Up to `FEW` samples are read in this process, regardless of the number of workers.

    Raises:
        ConfigError: the number of workers is less than 1.
        DataError: a worker process was killed.
    """
    processes = min(workers, 1) if len(samples) <= FEW else workers
    yield from watched(run_jobs(read_sample, samples, processes), len(samples), title)


def read_sample(sample: Sample) -> Reading:
    """Reads all files of a sample completely, the image with the loader used in training."""
    reading = Reading(sample, {}, {}, {})
    for path, read in ((sample.image, image_size), (sample.clean, image_size), (sample.label, label_ids)):
        if path is None:
            continue
        try:
            found = read(path)
        except DataError as error:
            reading.faults[path] = str(error).removeprefix(path).lstrip(': ')
            continue
        if read is label_ids:
            ids, counts = np.unique(found, return_counts=True)
            reading.pixels.update(zip(ids.tolist(), counts.tolist(), strict=True))
            found = found.shape[::-1]
        reading.sizes[path] = found
    return reading


def image_size(path: str) -> Size:
    """Returns the size of an image as loaded in training, after decoding it completely.

    Raises:
        DataError: the file is missing, truncated, damaged or not an image.
    """
    height, width = LoadImageStrict()({'img_path': path})['img_shape']
    decode_fully(Path(path).read_bytes(), path)  # the loader checks only the end of the file
    return width, height


def label_ids(path: str) -> np.ndarray:
    """Returns the unchanged ids of a label file as (H, W) integers.

    Raises:
        DataError: the file is missing, truncated, damaged or a colour image.
    """
    image = decode_fully(Path(path).read_bytes(), path)
    label = np.asarray(image)
    if label.ndim != 2 or label.dtype.kind not in 'bui':
        raise DataError(f'{path}: the image has mode {image.mode}, but a label must have one channel of class ids.')
    return label.astype(np.int64)
