"""Pixel counts per image and class, from which all scores and intervals are computed, and their files.

The counts of a test are `results/counts/<setting>/<system>-<seed>-<split>.npz`; its record holds the hash of the file.
"""

import hashlib
import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.config import Config
from mmseg.registry import DATASETS

from experiments.store import Record, counts_file
from rass_mm.config import load_config
from rass_mm.datasets.names import class_names
from rass_mm.errors import DataError
from rass_mm.files.atomic import write_bytes
from rass_mm.files.hashing import file_sha256

ARRAYS = ('intersection', 'prediction', 'truth')
KEYS = ('setting', 'system', 'seed')
MEANS = ('seconds', 'seconds_per_step', 'training_tflop')


class Counts(NamedTuple):
    """Pixels of labelled positions, per image and class.

    Attributes:
        names: (N,) names of the images, without suffix.
        intersection: (N, K) int32, correctly predicted pixels.
        prediction: (N, K) int32, predicted pixels.
        truth: (N, K) int32, labelled pixels.
    """

    names: np.ndarray
    intersection: np.ndarray
    prediction: np.ndarray
    truth: np.ndarray


def ious(intersection: np.ndarray, prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Computes the IoU of each class in [0, 1]; NaN for classes that occur neither in the truth nor in the prediction.

    Args:
        intersection: (..., K) pixel counts.
        prediction: (..., K) pixel counts.
        truth: (..., K) pixel counts.
    """
    union = prediction + truth - intersection
    return np.where(union > 0, intersection / np.maximum(union, 1), np.nan)


def pooled_miou(counts: Counts) -> float:
    """Computes the mIoU (%) over all pixels: the mean over the classes that occur in the truth or the prediction."""
    return 100 * float(np.nanmean(ious(*(part.sum(0, dtype=np.int64) for part in counts[1:]))))


def scores(counts: Counts, classes: Sequence[str]) -> dict[str, dict[str, float]]:
    """Returns the IoU (%) per class as `IoU`, and the mIoU (%) per image as `images`."""
    total = ious(*(part.sum(0, dtype=np.int64) for part in counts[1:])).tolist()
    means = np.nanmean(ious(*counts[1:]), 1).tolist()
    return {
        'IoU': {name: round(100 * score, 2) for name, score in zip(classes, total, strict=True) if score == score},
        'images': {name: round(100 * score, 2) for name, score in zip(counts.names.tolist(), means, strict=True)},
    }


def counts_of_maps(dataset: Config, predictions: Path) -> Counts:
    """Counts the pixels of the label maps that a test has written.

    Args:
        dataset: config of the tested data set.
        predictions: folder of the label maps, named as the images, with PNG as format.

    Raises:
        DataError: a label map is missing, damaged, of another size or with unknown classes.
    """
    count, names, parts = len(class_names(dataset.type)), [], []
    for place in _label_files(dataset):
        truth, predicted = _read(place), _read(predictions / f'{place.stem}.png')
        counted = truth < count  # 255 is ignored
        if truth.shape != predicted.shape or (predicted[counted] >= count).any():
            raise DataError(
                f'{predictions / place.stem}.png has shape {predicted.shape} and classes up to {predicted.max()}; '
                f'expected {truth.shape} and {count} classes. Remove {predictions} and run the test again.'
            )
        correct = truth[counted & (truth == predicted)]
        parts.append([np.bincount(x, minlength=count) for x in (correct, predicted[counted], truth[counted])])
        names.append(place.stem)
    return Counts(np.array(names), *np.array(parts, np.int32).transpose(1, 0, 2))


def _label_files(dataset: Config) -> list[Path]:
    """Returns the label files of all tested images, in the order of the data set."""
    built = DATASETS.build({**dataset.to_dict(), 'pipeline': [], 'test_mode': True})
    return [Path(built.get_data_info(number)['seg_map_path']) for number in range(len(built))]


def _read(file: Path) -> np.ndarray:
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if labels is None:
        raise DataError(f'{file} is missing or damaged. Run the test again.')
    return labels


def encode_counts(counts: Counts) -> bytes:
    """Encodes counts as a compressed NPZ file. Equal counts give equal bytes."""
    encoded = io.BytesIO()
    np.savez_compressed(encoded, **counts._asdict())
    return encoded.getvalue()


def with_hashes(record: Record, counts: dict[str, Counts]) -> Record:
    """Returns a record with the hashes of the files of its counts, which are not written.

    Args:
        record: the record, without hashes.
        counts: the counts by test.
    """
    hashes = {split: {'counts': hashlib.sha256(encode_counts(found)).hexdigest()} for split, found in counts.items()}
    return {**record, 'tests': {split: {**test, **hashes.get(split, {})} for split, test in record['tests'].items()}}


def write_counts(record: Record, counts: dict[str, Counts]) -> Record:
    """Writes the counts of the tests of a record, and returns the record with the hashes of the files."""
    for split, found in counts.items():
        write_bytes(counts_file(*(record[key] for key in KEYS), split), encode_counts(found))
    return with_hashes(record, counts)


def read_counts(record: Record, split: str) -> Counts | None:
    """Reads the counts of a test, or returns None for a record that was made before counts were kept.

    Those of a record that pools several folds are the images of all folds, see `pooled`.

    Raises:
        DataError: a file is missing, or not the file that the record names.
    """
    if 'folds' in record:
        found = [read_counts(fold, split) for fold in record['folds']]
        return None if None in found else Counts(*map(np.concatenate, zip(*found, strict=True)))
    known = record['tests'][split].get('counts')
    return _read_file(counts_file(*(record[key] for key in KEYS), split), known) if known else None


@cache
def _read_file(file: Path, known: str) -> Counts:
    if not file.is_file() or file_sha256(file) != known:
        raise DataError(
            f'{file} is missing or does not have the hash {known} of its record. Restore it from the repository.'
        )
    with np.load(file) as arrays:
        return Counts(arrays['names'], *(arrays[name] for name in ARRAYS))


def pooled(folds: Sequence[Record]) -> Record:
    """Returns a record of one seed that pools the records of all folds, so that every image counts once.

    mIoU and IoU are those of the pixels of all folds. The other scores, the curve, the seconds and the cost are means
    over the folds. Everything else, and the commands, are those of the first fold.
    """
    first = folds[0]
    tests = {name: _pooled_test([fold['tests'][name] for fold in folds]) for name in first['tests']}
    for split in () if 'restore' in tests else tests:
        found = read_counts({'folds': folds}, split)
        classes = class_names(load_config(first['config']).test_dataloader.dataset.type)
        tests[split] |= {'mIoU': pooled_miou(found), **scores(found, classes)}
    means = {key: fmean(fold[key] for fold in folds) for key in MEANS if all(fold.get(key) for fold in folds)}
    if 'curve' in first:
        points = zip(*(fold['curve'] for fold in folds), strict=True)
        means['curve'] = [[point[0][0], fmean(value for _, value in point)] for point in points]
    return {**first, **means, 'tests': tests, 'folds': list(folds)}


def _pooled_test(tests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the means of the numbers of a test over the folds."""
    numbers = {key: fmean(test[key] for test in tests) for key, value in tests[0].items() if isinstance(value, float)}
    protocol = f'{tests[0].get("protocol")}, and likewise the other folds, {len(tests)} in all'
    return {**tests[0], **numbers, 'protocol': protocol}
