"""Reads every image and label of a data set."""

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
"""Samples that are read sooner than worker processes start."""


@dataclass(frozen=True)
class Reading:
    """What one sample's files hold.

    Args:
        sample: whose.
        faults: file -> why it cannot be used.
        sizes: file -> its size, for readable files.
        pixels: label id as in the file -> number of pixels.
    """

    sample: Sample
    faults: dict[str, str]
    sizes: dict[str, Size]
    pixels: dict[int, int]


def read_samples(samples: list[Sample], workers: int, title: str) -> Iterator[Reading]:
    """Yields a reading of each sample, in the order in which they are ready, and shows progress under `title`.

    A handful of samples is read in this process, whatever the number of workers.

    Raises:
        ConfigError: fewer than one worker.
        DataError: a worker process was killed.
    """
    processes = min(workers, 1) if len(samples) <= FEW else workers
    yield from watched(run_jobs(read_sample, samples, processes), len(samples), title)


def read_sample(sample: Sample) -> Reading:
    """Reads the files of a sample in full, the image as training does."""
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
    """Size of an image as training loads it, after decoding it to its end.

    Raises:
        DataError: the file is absent, truncated, damaged or no image.
    """
    height, width = LoadImageStrict()({'img_path': path})['img_shape']
    decode_fully(Path(path).read_bytes(), path)  # the loader's look at the end misses damage in the middle
    return width, height


def label_ids(path: str) -> np.ndarray:
    """The ids of a label file as they stand in it, (H, W) integers.

    Raises:
        DataError: the file is absent, truncated, damaged or a colour picture.
    """
    image = decode_fully(Path(path).read_bytes(), path)
    label = np.asarray(image)
    if label.ndim != 2 or label.dtype.kind not in 'bui':
        raise DataError(f'{path}: a picture of mode {image.mode}, but a label has one channel of class ids.')
    return label.astype(np.int64)
