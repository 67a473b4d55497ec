"""Splits of CamVid by time: blocks of consecutive frames for validation, with a gap to the training frames.

The folds divide the 367 labelled frames of the official training split, which are about one second apart in all three
drives. The official validation clip is not used: its 101 frames are 1/15 s apart, 7 s in total.
"""

import re
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple

from rass_mm.errors import DataError

FOLDS = 3
GAP = 3
"""Labelled frames on each side of a validation block that are not used for training."""
HELD_OUT = 0.2
"""Share of the training frames on which learning rates are chosen."""


class Split(NamedTuple):
    """Names of the training and validation frames, sorted by drive and time."""

    training: list[str]
    validation: list[str]


def drive_and_frame(name: str) -> tuple[str, int]:
    """Returns the drive and the frame number in the video of a frame, e.g. `('0006R0', 2670)` of `0006R0_f02670`.

    Raises:
        DataError: the name is not that of a CamVid frame.
    """
    found = re.fullmatch(r'([0-9A-Z]+)_f?(\d+)', name)
    if found is None:
        raise DataError(f'{name} is not the name of a CamVid frame, such as 0016E5_00901. Pass the CamVid folder.')
    return found[1], int(found[2])


def fold(names: Iterable[str], number: int, count: int = FOLDS) -> Split:
    """Splits frames for one fold: of each drive, block `number` of `count` equal blocks in time is for validation."""
    return _split(names, lambda length: (number * length // count, (number + 1) * length // count))


def held_out(names: Iterable[str]) -> Split:
    """Splits training frames for the choice of a learning rate: of each drive, the end is for validation."""
    return _split(names, lambda length: (length - round(HELD_OUT * length), length))


def _split(names: Iterable[str], block: Callable[[int], tuple[int, int]]) -> Split:
    training, validation = [], []
    for _, frames in groupby(sorted(names, key=drive_and_frame), key=lambda name: drive_and_frame(name)[0]):
        drive = list(frames)
        start, stop = block(len(drive))
        validation += drive[start:stop]
        training += drive[: max(start - GAP, 0)] + drive[stop + GAP :]
    return Split(training, validation)
