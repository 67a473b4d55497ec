"""Windows at test: the released scheme against a direct one, bands of rows against whole maps, memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.models.segmentors import EncoderDecoder
from mmseg.structures import SegDataSample

from rass_mm.errors import ConfigError
from rass_mm.labelling.bands import Labels, resized_rows

ODD = [(96, 160), (160, 96), (64, 64), (64, 224), (128, 96)]


def stitched_directly(model, images):
    """The released scheme, one window at a time: features added up and divided by how often a place was seen."""
    height, width = images.shape[2:]
    side = min(height, width)
    sums, counts = None, None
    for row in range(max(height - 1, 0) // side + 1):
        for column in range(max(width - 1, 0) // side + 1):
            bottom, right = min((row + 1) * side, height), min((column + 1) * side, width)
            top, left = bottom - side, right - side
            levels = model.extract_feat(images[:, :, top:bottom, left:right])
            if sums is None:
                strides = [side // level.shape[-1] for level in levels]
                sums = [
                    level.new_zeros(*level.shape[:2], height // s, width // s)
                    for level, s in zip(levels, strides, strict=True)
                ]
                counts = [torch.zeros_like(total) for total in sums]
            for total, count, level, s in zip(sums, counts, levels, strides, strict=True):
                place = (slice(None), slice(None), slice(top // s, bottom // s), slice(left // s, right // s))
                total[place] += level
                count[place] += 1
    assert all(count.min() >= 1 for count in counts)
    return [total / count for total, count in zip(sums, counts, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize('size', ODD)
@pytest.mark.parametrize('name', ['upernet', 'mask2former'])
def test_stitched_windows_equal_a_direct_implementation(build, size, name):
    model = build(name).eval()
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))
    expected = stitched_directly(model, images)
    head = model.decode_head.predict(expected, [{'img_shape': images.shape[2:], 'pad_shape': size}] * 2, model.test_cfg)
    for batch in (1, 3):
        model.test_cfg = ConfigDict(mode='stitched', window_batch=batch)
        levels = model.stitched_features(images, model.prompt(images))
        for own, other in zip(levels, expected, strict=True):
            torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.inference(images, [{}] * 2), head, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('mode', ['slide', 'stitched'])
def test_windows_share_the_prompt_of_the_whole_image(build, mode):
    model = build().eval()
    seen = []
    model.prompt.register_forward_hook(lambda _m, args, _o: seen.append(tuple(args[0].shape)))
    model.test_cfg = ConfigDict(mode=mode, crop_size=(64, 64), stride=(64, 64), window_batch=2)
    model.predict(torch.randn(1, 3, 64, 160))
    assert seen == [(1, 3, 64, 160)]


@torch.no_grad()
def test_faded_windows_differ_in_the_overlap_only_and_have_no_steps(build):
    model = build().eval()
    images = torch.randn(1, 3, 64, 160, generator=torch.Generator().manual_seed(1))
    results = {}
    for blend in ('mean', 'ramp'):
        model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 96), stride=(64, 64), blend=blend)
        results[blend] = model.inference(images, [{}])
    same = (results['mean'] - results['ramp']).abs().amax((0, 1, 2)) < 1e-5
    # Windows 0..96 and 64..160 overlap in 64..96; the ramp is a mean at its middle only.
    assert same[:64].all() and same[96:].all() and not same[64:96].any()
    first = model.inference(images[..., :96], [{}])[..., 64:72]
    torch.testing.assert_close(results['ramp'][..., 64:72], first, rtol=1e-4, atol=1e-5)
    model.test_cfg.blend = 'soft'
    with pytest.raises(ConfigError, match="'soft'; expected one of mean, ramp"):
        model.inference(images, [{}])


@pytest.mark.parametrize('align', [False, True])
@pytest.mark.parametrize(
    ('size', 'target'), [((7, 9), (31, 20)), ((31, 20), (7, 9)), ((5, 5), (5, 8)), ((1, 4), (6, 1))]
)
def test_resized_rows_equal_interpolation(size, target, align):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(x, target, mode='bilinear', align_corners=align)
    for top, bottom in ((0, target[0]), (target[0] // 2, target[0]), (0, 1)):
        rows = resized_rows(x, target, top, bottom, align)
        torch.testing.assert_close(rows, whole[:, :, top:bottom], rtol=1e-5, atol=1e-5)


def reference_labels(model, logits, samples):
    return [sample.pred_sem_seg.data for sample in EncoderDecoder.postprocess_result(model, logits, samples)]


@pytest.mark.parametrize('bands', [(40,), (1, 7, 32), (8, 8, 8, 8, 8), (39, 1)])
@pytest.mark.parametrize('target', [(29, 43), (58, 86), (11, 13), (37, 90)])
@pytest.mark.parametrize('flip', [None, 'horizontal', 'vertical'])
def test_painted_labels_equal_mmsegs_whole_map(build, bands, target, flip):
    logits = torch.randn(1, 5, 40, 48, generator=torch.Generator().manual_seed(0))
    meta = {'ori_shape': target, 'padding_size': [2, 3, 4, 7], 'flip': flip is not None, 'flip_direction': flip}
    model = type('Model', (), {'align_corners': False})
    expected = reference_labels(model, logits, [SegDataSample(metainfo=meta)])[0]
    labels = Labels((40, 48), meta)
    for band in logits.split(bands, 2):
        labels.add(band[0])
    assert labels.finished().shape == (1, *target)
    assert (labels.finished() == expected).float().mean() > 0.999  # ties between two classes may fall either way


@torch.no_grad()
@pytest.mark.parametrize('name', ['upernet', 'mask2former'])
@pytest.mark.parametrize('mode', ['whole', 'slide', 'stitched'])
def test_predictions_equal_those_from_whole_logits(build, name, mode):
    model = build(name).eval()
    model.test_cfg = ConfigDict(mode=mode, crop_size=(64, 64), stride=(48, 64), window_batch=3)
    images = torch.randn(2, 3, 96, 160, generator=torch.Generator().manual_seed(1))
    samples = [
        SegDataSample(metainfo={'ori_shape': shape, 'img_shape': (90, 150), 'padding_size': [0, 10, 0, 6]})
        for shape in ((201, 307), (90, 150))
    ]
    logits = model.inference(images, [sample.metainfo for sample in samples])
    expected = reference_labels(model, logits, copy.deepcopy(samples))
    for sample, whole in zip(model.predict(images, samples), expected, strict=True):
        assert sample.pred_sem_seg.data.shape == whole.shape and 'seg_logits' not in sample
        assert (sample.pred_sem_seg.data == whole).float().mean() > 0.999
    model.test_cfg.keep_logits = True
    kept = model.predict(images, copy.deepcopy(samples))
    assert kept[0].seg_logits.data.shape == (12, 201, 307)
    assert torch.equal(kept[0].pred_sem_seg.data, expected[0])


@torch.no_grad()
def test_head_with_its_own_predict_still_works(build):
    model = build().eval()
    images = torch.randn(1, 3, 64, 64)
    before = model.inference(images, [{}])

    class Own(type(model.decode_head)):
        def predict(self, features, metas, test_cfg):
            return super().predict(features, metas, test_cfg) * 2

    model.decode_head.__class__ = Own
    torch.testing.assert_close(model.inference(images, [{}]), before * 2)


@torch.no_grad()
def test_single_class_head_uses_its_threshold(build):
    model = build(
        **{'decode_head.num_classes': 1, 'decode_head.out_channels': 1, 'decode_head.threshold': 0.4}, classes=['sky']
    )
    model.eval()
    images = torch.randn(1, 3, 64, 64)
    logits = model.inference(images, [{}])
    labels = model.predict(images)[0].pred_sem_seg
    assert isinstance(labels, PixelData)
    assert torch.equal(labels.data[0].bool(), logits[0, 0].sigmoid() > 0.4)


def test_single_class_head_without_a_threshold_is_refused(build):
    with pytest.raises(ConfigError, match='cannot predict a single class, because it has no threshold'):
        build(
            'mask2former',
            classes=['sky'],
            **{'decode_head.num_classes': 1, 'decode_head.loss_cls.class_weight': [1, 0.1]},
        )


def test_sliding_without_sizes_is_refused(build):
    model = build()
    model.test_cfg = ConfigDict(mode='slide')
    with pytest.raises(ConfigError, match='needs crop_size and stride'):
        model.inference(torch.zeros(1, 3, 64, 64), [{}])


def test_diagonal_flip_is_undone():
    labels = Labels((4, 4), {'flip': True, 'flip_direction': 'diagonal'})
    labels.add(F.one_hot(torch.arange(16).reshape(4, 4)).permute(2, 0, 1).float())
    assert labels.finished()[0, 0].tolist() == [15, 14, 13, 12]


@torch.no_grad()
def test_no_more_than_a_few_rows_of_logits_exist_at_once(build):
    """150 classes of a wide image: the largest tensor made while predicting stays far below the whole map's size."""
    model = build(classes=[f'class {i}' for i in range(150)], **{'decode_head.num_classes': 150}).eval()
    model.test_cfg = ConfigDict(mode='slide', crop_size=(64, 64), stride=(64, 64), window_batch=2)
    largest = LargestTensor()
    images = torch.zeros(1, 3, 640, 64)
    with largest:
        sample = model.predict(images, [SegDataSample(metainfo={'ori_shape': (640, 64), 'img_shape': (640, 64)})])[0]
    assert sample.pred_sem_seg.data.shape == (1, 640, 64)
    assert largest.values < 150 * 640 * 64 / 3
    model.test_cfg.keep_logits = True
    with largest:
        model.predict(images)
    assert largest.values >= 150 * 640 * 64


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the largest tensor any operation returns."""

    values = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, torch.Tensor):
                self.values = max(self.values, part.untyped_storage().nbytes() // part.element_size())
        return result
