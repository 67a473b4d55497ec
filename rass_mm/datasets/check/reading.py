"""Reading of all images and labels of a data set."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rass_mm.datasets.check.listing import Listing, Sample
from rass_mm.datasets.labels import is_lossy, lossy_reason, mode_reason
from rass_mm.datasets.loading import LoadImageStrict
from rass_mm.errors import DataError
from rass_mm.files.integrity import MAX_PIXELS, check_decodable, check_size, decode_fully
from rass_mm.files.regular import check_regular
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
        faults: reasons why files cannot be used, by file.
        sizes: (width, height) of the readable files, by file.
        pixels: number of pixels by label id, as in the file.
        orientation: EXIF orientation of the image, 1 to 8.
        lossy: message about a lossy label format, or None. The ids of a lossy label are not counted.
    """

    sample: Sample
    faults: dict[str, str]
    sizes: dict[str, Size]
    pixels: dict[int, int]
    orientation: int = 1
    lossy: str | None = None


def read_samples(listing: Listing, limit: int | None, workers: int, title: str) -> Iterator[Reading]:
    """Reads the first `limit` samples, yields each result as soon as it is available, and shows the progress.

    If there are at most `FEW` samples, they are read in this process, regardless of the number of workers.

    Raises:
        ConfigError: the number of workers is less than 1.
        DataError: a worker process was killed.
    """
    samples = listing.samples[:limit]
    read = functools.partial(read_sample, max_pixels=listing.max_pixels)
    processes = min(workers, 1) if len(samples) <= FEW else workers
    yield from watched(run_jobs(read, samples, processes), len(samples), title)


def read_sample(sample: Sample, max_pixels: int = MAX_PIXELS) -> Reading:
    """Reads all files of a sample completely. Images are read with the loader that is used in training."""
    faults: dict[str, str] = {}
    sizes: dict[str, Size] = {}
    pixels: dict[int, int] = {}
    orientation, lossy = 1, None
    for path in filter(None, (sample.image, sample.clean, sample.label)):
        try:
            if path != sample.label:
                sizes[path], turn = image_size(path, max_pixels)
                orientation = turn if path == sample.image else orientation
                continue
            ids, lossy = label_ids(path, max_pixels)
        except DataError as error:
            faults[path] = str(error).removeprefix(path).lstrip(': ')
            continue
        sizes[path] = ids.shape[::-1]
        if lossy is None:
            found, counts = np.unique(ids, return_counts=True)
            pixels.update(zip(found.tolist(), counts.tolist(), strict=True))
    return Reading(sample, faults, sizes, pixels, orientation, lossy)


def image_size(path: str, max_pixels: int = MAX_PIXELS) -> tuple[Size, int]:
    """Decodes an image completely and returns its (width, height), as loaded in training, and its EXIF orientation.

    Raises:
        DataError: the file is missing, truncated, damaged, too large or not an image.
    """
    loaded = LoadImageStrict(max_pixels=max_pixels)({'img_path': path})
    check_decodable(Path(path).read_bytes(), path)  # the loader does not decode all files completely
    height, width = loaded['img_shape']
    return (width, height), loaded['exif_orientation']


def label_ids(path: str, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, str | None]:
    """Returns the ids of a label file as (H, W) integers, and a message if its format is lossy, else None.

    Raises:
        DataError: the file is missing, truncated, damaged, too large or a colour image.
    """
    check_regular(path, 'Replace it by a label file.')
    data = Path(path).read_bytes()
    check_size(data, path, max_pixels)
    image = decode_fully(data, path)
    label = np.asarray(image)
    if is_lossy(image, data):
        return label[..., 0] if label.ndim > 2 else label, lossy_reason(image)
    if label.ndim != 2 or label.dtype.kind not in 'bui':
        raise DataError(f'{path}: {mode_reason(image)}')
    return label.astype(np.int64), None
