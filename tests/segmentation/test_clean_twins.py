"""Training on the clean and the degraded version of each crop, with the KL divergence between their predictions."""

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, MODELS
from mmseg.structures import SegDataSample
from tiny_segmentors import shipped

from rass_mm.config import load_config
from rass_mm.config.settings import check_settings
from rass_mm.errors import ConfigError
from rass_mm.segmentation.consistency import kl_divergence, log_probabilities, query_log_probabilities
from rass_mm.segmentation.entry_points import settle

RASS, MASK2FORMER = 'rass/rass_scenes_tiny.py', 'rass/rass_scenes_tiny_mask2former.py'
RESNET, RESTORED = 'baselines/resnet_scenes_tiny.py', 'baselines/resnet_scenes_tiny_r2s.py'
WEIGHT = 'model.train_cfg.clean_twins.kl_weight'
RNG = np.random.default_rng(0)


def softmax(values, axis):
    powers = np.exp(values - values.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def divergence(clean, degraded):
    """Mean over images and pixels of KL(clean || degraded) for (B, K, h, w) probabilities, in float64."""
    return (clean * (np.log(clean) - np.log(degraded))).sum(1).mean()


def single(logits):
    """Probabilities of both classes from the logit of one."""
    positive = 1 / (1 + np.exp(-logits))
    return np.concatenate([1 - positive, positive], 1)


@pytest.mark.parametrize(('channels', 'reference'), [(12, lambda logits: softmax(logits, 1)), (1, single)])
def test_kl_of_logits_equals_the_formula(channels, reference):
    clean, degraded = 3 * RNG.standard_normal((2, 2, channels, 5, 7))
    found = kl_divergence(*(log_probabilities(torch.from_numpy(part)) for part in (clean, degraded)))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(divergence(reference(clean), reference(degraded)), rel=1e-5)


def test_kl_of_queries_equals_the_formula():
    """The class scores of mmseg's prediction, divided by their sum."""
    scores, masks = 2 * RNG.standard_normal((2, 2, 9, 13)), 3 * RNG.standard_normal((2, 2, 9, 5, 7))
    shares = []
    for score, mask in zip(scores, masks, strict=True):
        found = np.einsum('bqk,bqhw->bkhw', softmax(score, 2)[..., :-1], 1 / (1 + np.exp(-mask)))
        shares.append(found / found.sum(1, keepdims=True))
    ours = [query_log_probabilities(*map(torch.from_numpy, pair)) for pair in zip(scores, masks, strict=True)]
    assert float(kl_divergence(*ours)) == pytest.approx(divergence(*shares), rel=1e-3)
    np.testing.assert_allclose(ours[0].exp().numpy(), shares[0], rtol=1e-3)


def test_the_gradient_changes_only_the_degraded_side():
    clean, degraded = (torch.randn(2, 12, 5, 7, requires_grad=True) for _ in range(2))
    kl_divergence(log_probabilities(clean), log_probabilities(degraded)).backward()
    assert clean.grad is None
    expected = (degraded.softmax(1) - clean.softmax(1)) / (2 * 5 * 7)
    torch.testing.assert_close(degraded.grad, expected.detach(), rtol=1e-4, atol=1e-7)
    same = log_probabilities(clean)
    assert float(kl_divergence(same, same)) == 0


def test_extreme_scores_have_finite_gradients():
    scores, masks = torch.full((2, 3, 5), -200.0), torch.full((2, 3, 4, 4), -200.0)
    scores[0, :, 0] = masks[0] = 200.0
    scores, masks = scores.requires_grad_(), masks.requires_grad_()
    found = query_log_probabilities(scores, masks)
    kl_divergence(found[:1], found[1:]).backward()
    assert torch.isfinite(found).all() and torch.isfinite(scores.grad).all() and torch.isfinite(masks.grad).all()


def config_of(name, base, **options):
    init_default_scope('mmseg')
    place = {} if name in (RESNET, RESTORED) else {'model.backbone.base': str(base)}
    config = shipped(name, **place, **options)
    settle(config)
    return config


def built(config):
    torch.manual_seed(0)
    if 'dropout_ratio' in config.model.decode_head:
        config.model.decode_head.dropout_ratio = 0.0
    model = MODELS.build(config.model)
    return model


def batch_of(config, scenes, count=2):
    """A batch of the training data, as from the data loader."""
    dataset = {**config.train_dataloader.dataset, 'data_root': str(scenes)}
    data = DATASETS.build(dataset)
    np.random.seed(0)
    return pseudo_collate([data[index] for index in range(count)])


@pytest.fixture
def same_points(monkeypatch):
    """Gives the losses of Mask2Former the same random points in each call."""
    generator = torch.Generator()
    rand = torch.rand
    monkeypatch.setattr(torch, 'rand', lambda *size, **more: rand(*size, generator=generator.manual_seed(0), **more))


@pytest.mark.parametrize('name', [RASS, MASK2FORMER, RESNET])
def test_both_images_are_trained_with_the_labels(name, tiny_base, scenes, same_points):
    """Compared with a model without the switch on a batch of degraded and clean images that is put together by hand."""
    on, off = config_of(name, tiny_base, **{WEIGHT: 0.5}), config_of(name, tiny_base)
    data, plain = batch_of(on, scenes), batch_of(off, scenes)
    for one, other in zip(data['inputs'], plain['inputs'], strict=True):
        assert torch.equal(one, other)  # the degraded images are those without the switch
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=sample.gt_sem_seg.data.clone()), metainfo={'img_shape': (96, 96)})
        for sample in 2 * plain['data_samples']
    ]
    clean = [torch.from_numpy(sample.gt.transpose(2, 0, 1).copy()) for sample in data['data_samples']]
    assert not torch.equal(clean[0], data['inputs'][0])
    reference, model = built(off), built(on)
    prepared = reference.data_preprocessor({'inputs': [*data['inputs'], *clean], 'data_samples': samples}, True)
    twins = model.data_preprocessor(data, True)
    assert torch.equal(twins['inputs'], prepared['inputs']) and len(data['inputs']) == len(data['data_samples']) == 2
    expected, found = reference.loss(**prepared), model.loss(**twins)
    kl = found.pop('decode.loss_kl')
    assert float(kl) > 0 and found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=0, atol=1e-6)


def test_the_weight_scales_the_divergence_of_the_two_predictions(tiny_base, scenes):
    model = built(config_of(RASS, tiny_base, **{WEIGHT: 0.5}))
    twins = model.data_preprocessor(batch_of(config_of(RASS, tiny_base, **{WEIGHT: 0.5}), scenes), True)
    found = float(model.loss(**twins)['decode.loss_kl'].detach())
    degraded, clean = (model._forward(part).detach().double().numpy() for part in twins['inputs'].chunk(2))
    assert found == pytest.approx(0.5 * divergence(softmax(clean, 1), softmax(degraded, 1)), rel=1e-4)


def test_without_a_weight_any_head_is_trained_on_both(tiny_base, scenes):
    class Doubled(MODELS.get('UPerHead')):
        def loss_by_feat(self, seg_logits, batch_data_samples):
            return {'loss_own': 2 * super().loss_by_feat(seg_logits, batch_data_samples)['loss_ce']}

    config = config_of(RESNET, tiny_base, **{WEIGHT: 0})
    config.model.decode_head.type = Doubled
    model = built(config)
    twins = model.data_preprocessor(batch_of(config, scenes), True)
    assert len(twins['inputs']) == 4 and set(model.loss(**twins)) == {'decode.loss_own'}
    config.model.train_cfg.clean_twins.kl_weight = 1.0
    with pytest.raises(ConfigError, match='the class probabilities of Doubled are not known(.|\n)*kl_weight=0'):
        built(config)


def test_a_test_has_no_twins(tiny_base, scenes):
    model = built(config_of(RESNET, tiny_base, **{WEIGHT: 1.0}))
    image = torch.zeros(3, 96, 96, dtype=torch.uint8)
    data = {'inputs': [image], 'data_samples': [SegDataSample(metainfo={'ori_shape': (96, 96)})]}
    assert model.data_preprocessor(data, False)['inputs'].shape == (1, 3, 96, 96)


def test_the_pipeline_keeps_the_clean_crop(tiny_base):
    config = config_of(RASS, tiny_base, **{WEIGHT: 1.0})
    steps = config.train_dataloader.dataset.pipeline
    assert [step['type'] for step in steps][-3:] == ['KeepCleanImage', 'LQDegradation', 'PackSegInputs']
    assert steps[-1]['meta_keys'][-1] == 'gt' and 'flip' in steps[-1]['meta_keys']
    settle(config)
    assert config.train_dataloader.dataset.pipeline == steps  # once is enough
    off = config_of(RASS, tiny_base, **{'model.train_cfg.clean_twins': None})
    assert off.train_dataloader == shipped(RASS).train_dataloader
    official = load_config('rass/rass_ade20k_lq_official.py').train_dataloader.dataset.pipeline
    settled = load_config('rass/rass_ade20k_lq_official.py', {WEIGHT: 1.0})
    settle(settled)
    assert settled.train_dataloader.dataset.pipeline == official  # it keeps the clean crop already, for the tags


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        ({'clean_twins': True}, r'model.train_cfg.clean_twins is True, but it should be a dict'),
        ({'clean_twins': {}}, r'kl_weight=0, the model is trained on both'),
        ({'clean_twins.weight': 1.0, 'clean_twins.kl_weight': 1}, r'clean_twins.weight is not a setting'),
        ({'clean_twins.kl_weight': -1}, r'clean_twins.kl_weight is -1, but it should be greater than or equal to 0'),
        ({'clean_twins.kl_weight': float('nan')}, r'clean_twins.kl_weight is nan'),
        ({'clean_twins.kl_weight': 'high'}, r"clean_twins.kl_weight is 'high'"),
        ({'clean_twin.kl_weight': 1}, r'train_cfg.clean_twin is not a setting of a segmentor. Did you mean clean_t'),
    ],
)
def test_wrong_values_are_named(tiny_base, options, said):
    options = {f'model.train_cfg.{key}': value for key, value in options.items()}
    with pytest.raises(ConfigError, match=said):
        check_settings(load_config(RASS, options), 'train')
    with pytest.raises(ConfigError, match=said):
        built(config_of(RASS, tiny_base, **options))


def test_batches_without_clean_images_are_named(tiny_base, scenes):
    config = config_of(RASS, tiny_base, **{WEIGHT: 1.0})
    model = built(config)
    with pytest.raises(ConfigError, match='KeepCleanImage directly before LQDegradation'):
        model.data_preprocessor(batch_of(config_of(RASS, tiny_base), scenes), True)
    data = batch_of(config, scenes)
    data['data_samples'][1].set_metainfo({'gt': np.zeros((95, 96, 3), np.uint8)})
    with pytest.raises(ConfigError, match=r'\(3, 95, 96\), but the degraded one has \(3, 96, 96\)'):
        model.data_preprocessor(data, True)
    plain = built(config_of(RASS, tiny_base)).data_preprocessor(batch_of(config, scenes), True)
    with pytest.raises(ConfigError, match='the batch has no clean twins'):
        model.loss(**plain)


def test_a_restored_image_has_its_clean_twin(adapter, tiny_base, scenes):
    config = config_of(RESTORED, tiny_base, **{'model.segmentor.train_cfg.clean_twins': {'kl_weight': 1.0}})
    check_settings(config, 'model')
    config.model.restorer.update(adapter=str(adapter), base=str(tiny_base))
    model = MODELS.build(config.model)
    data = batch_of(config, scenes)
    losses = model.loss(**model.data_preprocessor(data, True))
    assert float(losses['decode.loss_kl'].detach()) > 0
