"""Contact sheet: its contents, and that it is written even if some images fail."""

import cv2
import numpy as np
import pytest
from PIL import Image

from rass_mm.errors import DataError
from rass_mm.inference.plan import plan_files
from rass_mm.inference.sheet import GAP, SIDE, check_sheet, write_sheet
from rass_mm.visualization import CAPTION

TOP = CAPTION[1]


@pytest.fixture
def tasks(tmp_path):
    """Five sources of different shapes, and outputs of four of them at half the brightness."""
    (tmp_path / 'in').mkdir()
    for index, size in enumerate([(192, 192), (300, 100), (20, 60), (1, 50), (64, 64)]):
        Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(tmp_path / 'in' / f'{index}.png')
    tasks = plan_files(tmp_path / 'in', tmp_path / 'out').tasks
    for task in tasks[:4]:
        Image.fromarray(np.asarray(Image.open(task.source)) // 2).save(task.target)
    return tasks


def test_shows_inputs_beside_outputs_of_restored_images(tasks, tmp_path):
    write_sheet(tmp_path / 'sheet.png', tasks)
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet.shape == (SIDE + TOP + GAP, 4 * (2 * SIDE + 3 * GAP), 3)  # the fifth has no output
    left, right = sheet[TOP : TOP + SIDE, GAP : GAP + SIDE], sheet[TOP : TOP + SIDE, 2 * GAP + SIDE :]
    assert (left == 200).all() and (right[:, :SIDE] == 100).all()


def test_nothing_restored_writes_nothing(tasks, tmp_path):
    write_sheet(tmp_path / 'sheet.png', tasks[4:])
    assert not (tmp_path / 'sheet.png').exists()


def test_other_types_are_refused():
    with pytest.raises(DataError, match='contact sheet must be an image file'):
        check_sheet('sheet.txt')
