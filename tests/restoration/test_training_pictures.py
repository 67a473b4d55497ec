"""Pictures of validation images in the trackers of a restorer's training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

from rass_mm.restoration.pictures import RestorationImagesHook, attention_cells  # noqa: E402 - after the check
from rass_mm.restoration.samples import DataSample  # noqa: E402

SIZE = 64


def sample_of(labels=None, size=SIZE):
    """A restored image; `labels` is a class id of all pixels, or an (H, W) array."""
    image = torch.randint(256, (3, size, size), generator=torch.Generator().manual_seed(0)).float()
    sample = DataSample(metainfo={'img_path': '/data/a.png'})
    sample.set_data({'input': image, 'output': DataSample(pred_img=image), 'gt_img': image})
    if labels is not None:
        ids = torch.as_tensor(np.broadcast_to(labels, (size, size)).copy()).long()
        sample.gt_sem_seg = PixelData(data=ids[None])
    return sample


@pytest.fixture(scope='module')
def model(build):
    options = {'losses.score.loss_weight': 0.0, 'adapter.targets': ('conv_shortcut',)}  # for speed
    return build(**options).moved().model.eval()


def test_the_most_frequent_classes_of_the_labels_are_drawn(model):
    labels = np.full((SIZE, SIZE), 3)
    labels[:20], labels[:5, :5], labels[-20:] = 7, 1, 255
    cells = attention_cells(model, sample_of(labels), 2)
    assert list(cells) == [model.classes[3], model.classes[7]]
    assert all(cell.shape == (SIZE, SIZE, 3) and cell.dtype == np.uint8 for cell in cells.values())
    assert list(attention_cells(model, sample_of(labels), 9)) == [model.classes[index] for index in (3, 7, 1)]


@pytest.mark.parametrize('labels', [None, 255, 12], ids=['no labels', 'ignored labels', 'ids above the classes'])
def test_without_labelled_pixels_the_most_concentrated_classes_are_drawn(model, labels):
    cells = attention_cells(model, sample_of(labels), 3)
    assert len(cells) == 3 and set(cells) < set(model.classes)
    assert list(cells) == list(attention_cells(model, sample_of(), 3))


def test_only_the_first_images_of_each_validation_are_drawn(model):
    added = []
    visualizer = SimpleNamespace(add_image=lambda *args: added.append(args))
    runner = SimpleNamespace(model=model, iter=2, visualizer=visualizer)
    hook = RestorationImagesHook(count=2, words=1)
    for _ in range(2):
        hook.before_val_epoch(runner)
        for batch in range(2):
            hook.after_val_iter(runner, batch, None, [sample_of(255), sample_of(3)])
    names = ['val_0_a.png', 'attention_0_a.png', 'val_1_a.png', 'attention_1_a.png']
    assert [name for name, *_ in added] == names * 2 and {step for *_, step in added} == {2}
    assert added[0][1].dtype == np.uint8 and added[0][1].shape[2] == 3
