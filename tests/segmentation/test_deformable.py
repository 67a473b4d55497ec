"""Deformable attention and the prepared Mask2Former head, compared with mmcv's and mmdet's."""

import pytest
import torch
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

import rass_mm
from rass_mm.engine.ready import Preparation, prepare
from rass_mm.segmentation.deformable import bag_form, deformable_attention, grid_form

SHAPES = [(3, 5), (6, 10), (1, 7)]


def arguments(batch=2, heads=4, channels=16, queries=31, points=4):
    torch.manual_seed(0)
    cells = sum(height * width for height, width in SHAPES)
    value = torch.randn(batch, cells, heads, channels)
    locations = torch.rand(batch, queries, heads, len(SHAPES), points, 2) * 1.6 - 0.3  # some lie outside of the maps
    weights = torch.rand(batch, queries, heads, len(SHAPES) * points).softmax(-1)
    return value, locations, weights.unflatten(-1, (len(SHAPES), points))


@pytest.mark.parametrize('form', [deformable_attention, grid_form, bag_form])
def test_attention_equals_that_of_mmcv(form):
    value, locations, weights = arguments()
    expected = multi_scale_deformable_attn_pytorch(value, torch.tensor(SHAPES), locations, weights)
    torch.testing.assert_close(form(value, SHAPES, locations, weights), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize('form', [grid_form, bag_form])
def test_half_precision_keeps_the_positions_exact(form):
    value, locations, weights = arguments()
    expected = multi_scale_deformable_attn_pytorch(value, torch.tensor(SHAPES), locations, weights)
    found = form(value.bfloat16(), SHAPES, locations, weights.bfloat16())
    assert found.dtype is torch.bfloat16 and (found.float() - expected).abs().max() < 0.03


def test_points_on_the_borders_count_as_in_mmcv():
    value, locations, weights = arguments()
    edges = torch.tensor([-0.1, 0.0, 0.05, 0.1, 0.5, 0.95, 1.0, 1.1])
    locations.flatten()[:] = edges.repeat(-(-locations.numel() // len(edges)))[: locations.numel()]
    expected = multi_scale_deformable_attn_pytorch(value, torch.tensor(SHAPES), locations, weights)
    torch.testing.assert_close(bag_form(value, SHAPES, locations, weights), expected, rtol=0, atol=1e-5)


def test_tracers_get_the_form_without_dependence_on_values():
    class Attend(torch.nn.Module):
        def forward(self, value, locations, weights):
            return deformable_attention(value, SHAPES, locations, weights)

    given = arguments()
    program = torch.export.export(Attend(), given, strict=False)
    torch.testing.assert_close(program.module()(*given), Attend()(*given), rtol=0, atol=1e-5)
    assert 'grid_sampler' in str(program.graph) and 'embedding_bag' not in str(program.graph)


@pytest.fixture(scope='module')
def head():
    """Function that builds the Mask2Former head of the tiny config, always with the same random weights."""

    def make():
        init_default_scope('mmseg')
        torch.manual_seed(0)
        config = Config.fromfile(str(rass_mm.config_path('rass/rass_scenes_tiny_mask2former.py')))
        made = MODELS.build(config.model.decode_head).eval().requires_grad_(False)
        for name, parameter in made.named_parameters():
            scale = 8 if name.startswith(('cls_embed', 'mask_embed')) else 1  # several classes and masks
            torch.nn.init.normal_(parameter, std=0.3 * scale / parameter.shape[-1] ** 0.5)
        return made

    return make


@pytest.fixture(scope='module')
def features():
    """Features of two images of 96x128 pixels."""
    torch.manual_seed(1)
    return [torch.randn(2, 64, 96 // stride, 128 // stride) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize('packed', [True, False])
def test_a_prepared_head_equals_mmsegs(head, features, packed):
    metas = [{'pad_shape': (96, 128), 'img_shape': (96, 128)}] * 2
    expected = head().predict(features, metas, None)
    ready = prepare(head(), Preparation(pack=packed))
    found = ready.predict(features, metas, None)
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert expected.flatten(2).std(-1).max() > 0.05  # the masks are not blank
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.999
    part = ready.rows(features, metas, (96, 128))(40, 71)
    torch.testing.assert_close(part, found[:, :, 40:71], rtol=0, atol=1e-4)


def test_a_prepared_head_in_half_precision_is_close(head, features):
    metas = [{'pad_shape': (96, 128), 'img_shape': (96, 128)}] * 2
    expected = head().predict(features, metas, None)
    ready = prepare(head(), Preparation('bfloat16'))
    assert all(parameter.dtype is torch.bfloat16 for parameter in ready.parameters())
    found = ready.predict([feature.bfloat16() for feature in features], metas, None)
    assert found.dtype is torch.float32 and (found - expected).abs().mean() <= 0.02 * expected.abs().max()


def test_positions_follow_the_size_of_the_image(head, features):
    ready = prepare(head())
    metas = [{'pad_shape': (64, 64)}]
    small = [torch.randn(1, 64, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]
    before = ready.predict(small, metas, None)
    ready.predict(features, [{'pad_shape': (96, 128)}] * 2, None)
    assert torch.equal(ready.predict(small, metas, None), before)
    expected = head().predict(small, metas, None)
    assert (before - expected).abs().max() <= 1e-4 * expected.abs().max()
