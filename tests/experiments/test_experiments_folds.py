"""Folds by time and small subsets of the second data sets."""

from itertools import groupby

import cv2
import numpy as np
import pytest

from experiments import prepare
from experiments.folds import FOLDS, GAP, drive_and_frame, fold, held_out
from experiments.system import CAMVID_FOLDS, FEW, SEEDS
from rass_mm.errors import DataError

SECONDS_APART = 30
"""Video frames between two labelled frames of CamVid."""


def frame_names():
    """Names like those of CamVid's training frames: three drives, two ways of writing, a hole in one of them."""
    tp = [f'0001TP_{number:06d}' for number in range(6690, 6690 + 62 * 30, 30)]
    r0 = [f'0006R0_f{number:05d}' for number in range(930, 930 + 101 * 30, 30)]
    e5 = [f'0016E5_{number:05d}' for number in (*range(390, 2430, 30), *range(4350, 8430, 30))]
    return [*e5, *tp, *r0]


def by_drive(names):
    ordered = sorted(names, key=drive_and_frame)
    return {drive: list(frames) for drive, frames in groupby(ordered, key=lambda name: name[:6])}


def test_every_frame_is_validated_in_one_fold():
    names = frame_names()
    validated = [name for number in range(FOLDS) for name in fold(names, number).validation]
    assert sorted(validated) == sorted(names) and len(CAMVID_FOLDS) == FOLDS
    for number in range(FOLDS):
        for drive, frames in by_drive(fold(names, number).validation).items():
            position = by_drive(names)[drive].index(frames[0])
            assert frames == by_drive(names)[drive][position : position + len(frames)], 'not one block in time'


@pytest.mark.parametrize('split_of', [*(lambda names, n=n: fold(names, n) for n in range(FOLDS)), held_out])
def test_no_training_frame_is_within_the_gap_of_a_validation_frame(split_of):
    """By position in the drive, and by the numbers of the video frames."""
    names = frame_names()
    split = split_of(names)
    order = {name: place for frames in by_drive(names).values() for place, name in enumerate(frames)}
    assert split.training and split.validation and set(split.training).isdisjoint(split.validation)
    dropped = len(names) - len(split.training) - len(split.validation)
    assert 3 * GAP <= dropped <= 6 * GAP, 'three drives, one or two sides of a block'
    for drive, frames in by_drive(split.training).items():
        for validated in by_drive(split.validation)[drive]:
            assert min(abs(order[validated] - order[name]) for name in frames) > GAP
            numbers = [drive_and_frame(name)[1] for name in frames]
            assert min(abs(drive_and_frame(validated)[1] - number) for number in numbers) > GAP * SECONDS_APART


def test_frames_are_sorted_by_time_and_others_are_refused():
    assert drive_and_frame('0006R0_f02670') == ('0006R0', 2670)
    assert fold(['0016E5_00930', '0016E5_00901'], 0, count=1).validation == ['0016E5_00901', '0016E5_00930']
    with pytest.raises(DataError, match='scene_0001 is not the name of a CamVid frame'):
        fold(['scene_0001'], 0)


@pytest.fixture
def half(tmp_path):
    """A folder like that of CamVid at half size; each image and label has the number of its frame as value."""
    for number, name in enumerate(frame_names()):
        for kind, shape in (('img_dir', (4, 4, 3)), ('ann_dir', (4, 4))):
            place = tmp_path / 'half' / kind / 'train' / f'{name}.png'
            place.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(place), np.full(shape, number % 256, np.uint8))
    return tmp_path / 'half'


def test_folder_of_a_fold_has_its_frames_with_their_labels(half, tmp_path):
    folder = tmp_path / 'fold'
    for _ in range(2):  # a second call changes nothing
        prepare.link_fold(half, folder, 1)
        split = fold(frame_names(), 1)
        for part, names in (('train', split.training), ('val', split.validation)):
            for kind in ('img_dir', 'ann_dir'):
                assert {file.stem for file in (folder / kind / part).iterdir()} == set(names)
    for file in (folder / 'img_dir' / 'val').iterdir():
        image, label = (cv2.imread(str(folder / kind / 'val' / file.name), 0) for kind in ('img_dir', 'ann_dir'))
        assert np.array_equal(image, label)
    listed = {name: (folder / name).read_text().split() for name in ('rates-training.txt', 'rates-held-out.txt')}
    assert set().union(*listed.values()) < set(split.training)
    assert abs(len(listed['rates-held-out.txt']) / len(split.training) - 0.2) < 0.02


def test_few_labels_are_nested_subsets_that_differ_by_seed(tmp_path):
    folder = tmp_path / 'scenes2'
    names = [f'{number:05d}' for number in range(400)]
    for name in names:
        place = folder / 'img_dir' / 'train' / f'{name}.png'
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
    prepare.list_scenes(folder)
    small, large = ({s: (folder / f'few{n}-seed{s}.txt').read_text().split() for s in SEEDS} for n in FEW)
    for seed in SEEDS:
        assert len(set(small[seed])) == 25 and len(set(large[seed])) == 100
        assert set(small[seed]) < set(large[seed]) < set(names)
    assert len({tuple(sorted(subset)) for subset in small.values()}) == len(SEEDS)
    training, other = ((folder / f'rates-{part}.txt').read_text().split() for part in ('training', 'held-out'))
    assert training + other == names and len(other) == 100
