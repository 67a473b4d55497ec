"""Metrics from pyiqa, tested with a substitute, because pyiqa is optional and downloads its weights from a hub."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from rass_mm.errors import ConfigError, DataError, InstallationError, RassError
from rass_mm.metrics.perceptual import PYIQA_NAMES, PerceptualMetric, fid, require_pyiqa


class StandIn:
    """Substitute that behaves like a pyiqa metric, including the side effect on gradients."""

    def __init__(self, name, device):
        self.name, self.device, self.calls = name, device, []

    def __call__(self, *images, **options):
        torch.set_grad_enabled(False)
        self.calls.append((images, options))
        if self.name == 'fid':
            return np.float64(len([*Path(images[0]).glob('*')]) + 0.5)
        return images[0].mean(dim=(1, 2, 3))[:, None]


@pytest.fixture
def created(monkeypatch):
    """Provides the list of substitutes created so far."""
    made = []

    def create_metric(name, as_loss=False, device=None):
        made.append(StandIn(name, device))
        return made[-1]

    monkeypatch.setitem(sys.modules, 'pyiqa', types.SimpleNamespace(create_metric=create_metric))
    return made


def gradient():
    """Returns (H, W, 3) with a different value at each position."""
    return np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_names_are_those_of_the_protocol(created):
    for name in PYIQA_NAMES:
        if name != 'FID':
            PerceptualMetric(name)
    assert [metric.name for metric in created] == ['lpips', 'dists', 'musiq', 'maniqa-pipal', 'clipiqa']
    assert {metric.device for metric in created} == {torch.device('cpu')}


def test_images_arrive_as_rgb_batches_in_0_to_1(created):
    image = gradient()
    score = PerceptualMetric('MUSIQ')(image)
    ((batch,), options) = created[0].calls[0]
    assert batch.shape == (1, 3, 4, 5) and not options
    assert torch.equal(batch[0, 2, 3], torch.from_numpy(image[3, :, 2] / np.float32(255)))
    assert isinstance(score, float) and abs(score - image.mean() / 255) < 1e-6


def test_full_reference_metrics_get_the_image_first_then_the_truth(created):
    image, truth = gradient(), np.zeros((4, 5, 3), np.uint8)
    PerceptualMetric('LPIPS')(image, truth)
    (first, second), _ = created[0].calls[0]
    assert first.sum() > 0 and second.sum() == 0


def test_no_reference_metrics_ignore_the_truth(created):
    PerceptualMetric('CLIPIQA')(gradient(), gradient())
    assert len(created[0].calls[0][0]) == 1


def test_gradients_are_enabled_again_afterwards(created):
    PerceptualMetric('LPIPS')(gradient(), gradient())
    assert torch.is_grad_enabled()


@pytest.mark.parametrize('truth', [None, np.zeros((4, 6, 3))])
def test_a_missing_or_mismatched_truth_is_refused(created, truth):
    with pytest.raises(DataError, match='DISTS'):
        PerceptualMetric('DISTS')(gradient(), truth)


def test_fid_compares_two_folders(created, tmp_path):
    restored, clean = tmp_path / 'restored', tmp_path / 'clean'
    for folder, count in ((restored, 3), (clean, 2)):
        folder.mkdir()
        for index in range(count):
            (folder / f'{index}.png').touch()
    assert fid(restored, clean) == 3.5
    images, options = created[0].calls[0]
    assert images == (str(restored), str(clean)) and options['verbose'] is False
    assert torch.is_grad_enabled()


def test_fid_refuses_an_empty_folder(created, tmp_path):
    with pytest.raises(DataError, match='nowhere'):
        fid(tmp_path / 'nowhere', tmp_path)


@pytest.mark.parametrize('name', ['FID', 'lpips', 'PSNR'])
def test_unknown_names_are_refused(created, name):
    with pytest.raises(ConfigError, match='MANIQA'):
        PerceptualMetric(name)


def test_an_absent_pyiqa_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)  # makes `import pyiqa` fail, installed or not
    with pytest.raises(InstallationError, match='(?s)LPIPS needs.*pip install --no-deps pyiqa'):
        require_pyiqa('LPIPS')


def test_absent_weights_are_named_with_their_remedy(monkeypatch):
    def create_metric(name, device):
        raise OSError('<urlopen error no route>')

    monkeypatch.setitem(sys.modules, 'pyiqa', types.SimpleNamespace(create_metric=create_metric))
    with pytest.raises(RassError, match="(?s)MANIQA.*'maniqa-pipal'.*no route.*weights"):
        PerceptualMetric('MANIQA')
