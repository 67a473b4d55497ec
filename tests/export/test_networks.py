"""Facts of a segmentor that its exported model uses, beside what mmseg does."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import nn

from rass_mm.errors import ConfigError
from rass_mm.export.exported_segmentor import WindowPreprocessor
from rass_mm.export.networks import segmentor_facts
from rass_mm.segmentation.preprocessing import RawPadPreProcessor

VALUES = {'mean': [120.0, 110.0, 100.0], 'std': [60.0, 50.0, 40.0], 'bgr_to_rgb': True, 'pad_val': 3}
WINDOW = (32, 32)


def preprocessing(preprocessor):
    """The preprocessing of a segmentor with two classes and this data preprocessor."""
    model = nn.Module()
    model.data_preprocessor, model.decode_head, model.test_cfg = preprocessor, nn.Module(), ConfigDict()
    model.out_channels, model.align_corners = 2, False
    return segmentor_facts(model, ['a', 'b'], [[0] * 3, [1] * 3], [{'type': 'PackSegInputs'}], WINDOW)['preprocessing']


@pytest.mark.parametrize(
    ('settings', 'multiple'),
    [
        ({'size_divisor': 24}, 1),
        ({'size_divisor': 24, 'test_cfg': {'size_divisor': 16}}, 16),
        ({'size': (40, 40)}, 1),
        ({'size': (40, 40), 'test_cfg': {'size_divisor': 24}}, 24),
    ],
)
@pytest.mark.parametrize('kind', [SegDataPreProcessor, RawPadPreProcessor])
def test_test_images_are_padded_as_by_mmseg(kind, settings, multiple):
    own = kind(**VALUES, **settings)
    facts = preprocessing(own)
    assert facts['multiple'] == multiple
    image = torch.randint(0, 256, (3, 50, 33), dtype=torch.uint8)
    expected, found = (
        part({'inputs': [image], 'data_samples': [SegDataSample(metainfo={'img_shape': (50, 33)})]})['inputs']
        for part in (own, WindowPreprocessor(facts, WINDOW))
    )
    assert found.shape == expected.shape and torch.allclose(found, expected)


def test_a_fixed_test_size_is_refused():
    with pytest.raises(ConfigError, match=r'test_cfg\.size=\(64, 64\).*size_divisor'):
        preprocessing(SegDataPreProcessor(**VALUES, size=(40, 40), test_cfg={'size': (64, 64)}))
