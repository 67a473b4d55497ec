"""Options of a test that change its config."""

import pytest
from mmengine.config import Config

from rass_mm.errors import ConfigError
from rass_mm.segmentation.testing import use_tta


def test_tta_without_a_pipeline_is_refused():
    config = Config({'model': {}, 'test_dataloader': {}})
    with pytest.raises(ConfigError, match='tta_pipeline'):
        use_tta(config)


@pytest.mark.parametrize('inside', [False, True])
def test_tta_keeps_the_logits_of_the_segmentor(inside):
    segmentor = {'type': 'RASS', 'test_cfg': {'mode': 'slide'}}
    model = {'type': 'RestoreThenSegment', 'segmentor': segmentor} if inside else segmentor
    data = {'tta_pipeline': [1], 'tta_model': {'type': 'SegTTAModel'}, 'test_dataloader': {'dataset': {}}}
    config = Config({'model': model, **data})
    use_tta(config)
    kept = config.model.module
    assert config.test_dataloader.dataset.pipeline == [1] and ('test_cfg' in kept) != inside
    assert (kept.segmentor if inside else kept).test_cfg == {'mode': 'slide', 'keep_logits': True}
