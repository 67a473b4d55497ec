"""Windows of `rass-mm segment`: equal to mmseg's sliding inference, chosen by size, with bounded memory."""

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import nn

from rass_mm.errors import ConfigError
from rass_mm.inference import labelling
from rass_mm.inference.loading import load_segmentor
from rass_mm.inference.modes import ModeChoice, SegmentOptions

SLIDE = ConfigDict(mode='slide', crop_size=(96, 96), stride=(64, 64))


def options(**given):
    return SegmentOptions(confidence=True, **given)


@pytest.fixture(scope='module')
def large():
    """A photo of more than nine windows, (330, 290, 3) uint8 RGB."""
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (33, 29, 3), np.uint8).repeat(10, 0).repeat(10, 1)


def mmsegs(model, image, **settings):
    """Labels and probabilities of mmseg's own `test_step` with these test settings."""
    before, model.test_cfg = model.test_cfg, ConfigDict(settings)
    batch = {'inputs': [torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)]}
    size = image.shape[:2]
    batch['data_samples'] = [SegDataSample(metainfo={'ori_shape': size, 'img_shape': size})]
    with torch.no_grad():
        sample = model.test_step(batch)[0]
    model.test_cfg = before
    return sample.pred_sem_seg.data[0].numpy(), sample.seg_logits.data.softmax(0).amax(0).mul(255).numpy()


@pytest.mark.parametrize('most', [labelling.MOST_LOGITS, 0], ids=['predict', 'rows'])
@pytest.mark.parametrize('mode', ['auto', 'whole'])
def test_labels_and_confidences_are_those_of_mmseg(trained, large, monkeypatch, most, mode):
    monkeypatch.setattr(labelling, 'MOST_LOGITS', most)
    segmentor = load_segmentor(trained.plain.file, device='cpu', options=options(mode=mode))
    found = segmentor.predict(large)
    settings = SLIDE if mode == 'auto' else {'mode': 'whole'}
    expected, probability = mmsegs(segmentor.model, large, **settings)
    assert np.array_equal(found.labels, expected) and len(np.unique(expected)) >= 3
    assert np.abs(found.confidence - probability).max() <= 0.51


def test_windows_of_rass_are_its_own(trained, large):
    segmentor = load_segmentor(trained.rass.file, device='cpu')
    expected = mmsegs(segmentor.model, large, **SLIDE, keep_logits=True)[0]
    assert np.array_equal(segmentor.predict(large).labels, expected) and len(np.unique(expected)) >= 3


def test_a_pipeline_that_resizes_gives_labels_of_the_photo(trained, large, monkeypatch):
    config = trained.plain.config.copy()
    steps = config.test_dataloader.dataset.pipeline
    steps.insert(2, {'type': 'Resize', 'scale': (200, 130), 'keep_ratio': True})
    expected = load_segmentor(trained.plain.file, config, device='cpu').predict(large)
    assert expected.labels.shape == (330, 290)
    monkeypatch.setattr(labelling, 'MOST_LOGITS', 0)
    in_rows = load_segmentor(trained.plain.file, config, device='cpu').predict(large)
    assert np.array_equal(in_rows.labels, expected.labels)


def test_batches_change_no_more_than_rounding(trained, large):
    found = {}
    for size in (1, 3, 16):
        choice = options(mode='windows', batch_size=size)
        found[size] = load_segmentor(trained.plain.file, device='cpu', options=choice).predict(large)
    for size in (3, 16):
        assert (found[size].labels != found[1].labels).mean() < 1e-4
        assert np.abs(found[size].confidence.astype(int) - found[1].confidence).max() <= 1


class Plain(nn.Module):
    """Has the attributes of a segmentor that `ModeChoice` reads."""

    def __init__(self, size=(96, 96), divisor=32, **settings):
        super().__init__()
        self.test_cfg = ConfigDict(settings) if settings else None
        self.data_preprocessor = nn.Module()
        self.data_preprocessor.size = size
        self.data_preprocessor.test_cfg = {'size_divisor': divisor} if divisor else None


def chosen(model, size, **given):
    settings = ModeChoice(model, SegmentOptions(**given)).settings(size)
    return settings.get('mode'), settings.get('crop_size'), settings.get('stride')


WINDOWS = ('slide', (96, 96), (64, 64))


@pytest.mark.parametrize(
    ('model', 'size', 'given', 'expected'),
    [
        (Plain(), (100, 150), {}, (None, None, None)),
        (Plain(mode='whole'), (288, 288), {}, ('whole', None, None)),
        (Plain(mode='whole'), (288, 289), {}, WINDOWS),
        (Plain(mode='whole'), (2000, 2000), {'mode': 'whole'}, ('whole', None, None)),
        (Plain(mode='whole'), (97, 96), {'mode': 'windows'}, WINDOWS),
        (Plain(mode='whole'), (96, 96), {'mode': 'windows'}, ('whole', None, None)),
        (Plain(mode='whole'), (200, 200), {'window': 100}, ('slide', (128, 128), (64, 64))),
        (Plain(mode='whole'), (200, 200), {'window': 100, 'overlap': 20}, ('slide', (128, 128), (96, 96))),
        (Plain(mode='whole', divisor=None), (200, 200), {'window': 100}, ('slide', (100, 100), (66, 66))),
        (Plain(size=None), (2000, 2000), {}, ('slide', (512, 512), (320, 320))),
        (Plain(mode='slide', crop_size=(64, 80), stride=(32, 40)), (10, 10), {}, ('slide', (64, 80), (32, 40))),
        (Plain(mode='slide', crop_size=(64, 80), stride=(32, 40)), (10, 10), {'mode': 'whole'}, ('whole',) * 1),
        (Plain(mode='stitched'), (2000, 3000), {}, ('stitched', None, None)),
        (Plain(mode='stitched'), (2000, 3000), {'mode': 'windows'}, WINDOWS),
    ],
)
def test_the_mode_is_chosen_by_config_options_and_size(model, size, given, expected):
    assert chosen(model, size, **given)[: len(expected)] == expected


@pytest.mark.parametrize(
    'settings',
    [
        {'size': (64, 64)},
        {'size_divisor': 32},
        {'size_divisor': 32, 'test_cfg': {'size_divisor': 48}},
        {'size': (64, 64), 'test_cfg': {'size_divisor': 32}},
    ],
)
def test_a_window_has_a_size_to_which_mmseg_pads_test_images(settings):
    model = Plain(mode='whole')
    model.data_preprocessor = SegDataPreProcessor(**settings)
    padded = model.data_preprocessor({'inputs': [torch.zeros(3, 100, 100)], 'data_samples': [SegDataSample()]})
    assert chosen(model, (300, 300), window=100)[1] == tuple(padded['inputs'].shape[-2:])


def test_the_choice_is_described():
    assert 'up to 0.08 megapixels as a whole' in ModeChoice(Plain(mode='whole'), SegmentOptions()).described()
    assert 'windows of 96x96' in ModeChoice(Plain(mode='whole'), SegmentOptions(mode='windows')).described()
    assert ModeChoice(Plain(), SegmentOptions(mode='whole')).described() == 'each image as a whole'


@pytest.mark.parametrize(
    'wrong',
    [{'mode': 'magic'}, {'window': 0}, {'batch_size': 0}, {'overlap': -1}, {'mode': 'whole', 'window': 64}],
)
def test_options_that_cannot_work_are_refused(wrong):
    with pytest.raises(ConfigError):
        SegmentOptions(**wrong)
    with pytest.raises(ConfigError, match='less than the window'):
        ModeChoice(Plain(), SegmentOptions(overlap=96))
