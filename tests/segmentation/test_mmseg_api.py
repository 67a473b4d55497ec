"""mmseg's own API on the shipped configs: `init_model`, `inference_model`, `MMSegInferencer`, `show_result_pyplot`."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import python
from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.registry import init_default_scope
from mmseg.apis import MMSegInferencer, inference_model, init_model, show_result_pyplot
from mmseg.evaluation import IoUMetric
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from PIL import Image

import rass_mm
from rass_mm.datasets.classes import follow_classes
from rass_mm.errors import ConfigError, DataError
from rass_mm.segmentation import logits

CLASSES = ('ground', 'wall', 'roof')
TEN_LINES = """
_base_ = ['{shipped}']
own = dict(type='BaseSegDataset', data_root='{root}', metainfo=dict(classes={classes}), seg_map_suffix='.png')
train_dataloader = dict(dataset=dict(**own, img_suffix='.jpg'))
val_dataloader = dict(dataset=dict(**own, img_suffix='.png'))
test_dataloader = val_dataloader
"""
KINDS = {
    'rass': 'rass/rass_scenes_tiny.py',
    'mask2former': 'rass/rass_scenes_tiny_mask2former.py',
    'plain': 'diffusion/fcn_diffusion-tiny_1xb8-170_scenes-96x96.py',
    'resnet': 'baselines/resnet_scenes_tiny.py',
}
SIZES = ((37, 61), (96, 96), (130, 75))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Photos of odd sizes without labels."""
    folder, rng = tmp_path_factory.mktemp('photos'), np.random.default_rng(0)
    for index, size in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f'{index}.png')
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope='module')
def trained(tmp_path_factory, tiny_base):
    """Config of a user's own three classes and a checkpoint, by kind of model."""
    folder, made = tmp_path_factory.mktemp('own'), {}
    init_default_scope('mmseg')
    for kind, name in KINDS.items():
        text = TEN_LINES.format(shipped=rass_mm.config_path(name), root=folder, classes=CLASSES)
        base = f"model = dict(backbone=dict(base='{tiny_base}'))\n" if kind != 'resnet' else ''
        (folder / f'{kind}.py').write_text(text + base)
        config = Config.fromfile(folder / f'{kind}.py')
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        meta = {'dataset_meta': {'classes': CLASSES, 'palette': [[9, 9, 9], [200, 0, 0], [0, 200, 0]]}}
        hub = {'runtime_info': {'cfg': config.pretty_text}}  # as in the checkpoints of mmengine
        torch.save({'meta': meta, 'message_hub': hub, 'state_dict': model.state_dict()}, folder / f'{kind}.pth')
        made[kind] = (str(folder / f'{kind}.py'), str(folder / f'{kind}.pth'))
    return made


def running(model, *metrics):
    """Stand-in for a runner with the attributes that the hook reads."""
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=metrics))
    return SimpleNamespace(model=model, val_loop=loop, test_loop=loop)


def labels(result):
    return result.pred_sem_seg.data[0].numpy()


@pytest.mark.parametrize('kind', KINDS)
def test_paths_arrays_and_lists_give_the_same_labels_and_logits(trained, photos, kind, tmp_path):
    model = init_model(*trained[kind], device='cpu')
    assert model.out_channels == 3  # named once, in the data set
    by_path = [inference_model(model, photo) for photo in photos]
    for photo, result, size in zip(photos, by_path, SIZES, strict=True):
        array = np.asarray(Image.open(photo))[..., ::-1].copy()
        for other in (inference_model(model, array), inference_model(model, [photo])[0], inference_model(model, photo)):
            assert np.array_equal(labels(other), labels(result))
        assert result.seg_logits.data.shape == (3, *size) and labels(result).shape == size
        assert np.array_equal(result.seg_logits.data.argmax(0).numpy(), labels(result))
    if kind in ('rass', 'mask2former'):
        for result, other in zip(by_path, inference_model(model, photos), strict=True):
            assert np.array_equal(labels(result), labels(other))
    show_result_pyplot(model, photos[0], by_path[0], show=False, out_file=str(tmp_path / 'shown.png'))
    assert Image.open(tmp_path / 'shown.png').size == SIZES[0][::-1]


@pytest.mark.parametrize('kind', KINDS)
def test_the_inferencer_gives_the_labels_of_inference_model(trained, photos, kind, tmp_path):
    config, checkpoint = trained[kind]
    model = init_model(config, checkpoint, device='cpu')
    expected = [labels(inference_model(model, photo)) for photo in photos]
    inferencer = MMSegInferencer(config, checkpoint, device='cpu')
    folder = photos[0].rpartition('/')[0]
    found = inferencer(folder, out_dir=str(tmp_path))['predictions']
    in_order = sorted(zip(map(np.shape, found), found, strict=True), key=lambda pair: pair[0])
    assert [one.tolist() for _, one in in_order] == [one.tolist() for one in sorted(expected, key=np.shape)]
    assert len(list((tmp_path / 'vis').iterdir())) == len(list((tmp_path / 'pred').iterdir())) == 3
    array = np.asarray(Image.open(photos[0]))[..., ::-1].copy()
    assert np.array_equal(inferencer(array)['predictions'], expected[0])
    from_text = MMSegInferencer(None, checkpoint, device='cpu')  # its config is data
    assert np.array_equal(from_text(photos[2])['predictions'], expected[2])


def test_the_inferencer_refuses_a_truncated_photo(trained, photos, tmp_path):
    data = Path(photos[1]).read_bytes()
    (tmp_path / 'cut.png').write_bytes(data[: len(data) // 2])
    with pytest.raises(rass_mm.errors.DataError, match=r'cut\.png'):
        MMSegInferencer(*trained['rass'], device='cpu')(str(tmp_path / 'cut.png'))


def test_a_limit_of_pixels_holds_for_files_and_does_not_disturb_arrays(trained, photos):
    file, checkpoint = trained['resnet']
    config = Config.fromfile(file)
    for pipeline in (config.test_pipeline, config.test_dataloader.dataset.pipeline):
        pipeline[0].max_pixels = 5000
    model, inferencer = (door(config, checkpoint, device='cpu') for door in (init_model, MMSegInferencer))
    doors = [lambda image: labels(inference_model(model, image)), lambda image: inferencer(image)['predictions']]
    array = np.asarray(Image.open(photos[1]))[..., ::-1].copy()
    for door in doors:
        assert door(photos[0]).shape == SIZES[0] and door(array).shape == SIZES[1]
        with pytest.raises(DataError, match='96x96 pixels.*max_pixels'):
            door(photos[1])


def test_it_works_without_an_import_of_the_package_and_from_elsewhere(trained, photos, tmp_path):
    expected = labels(inference_model(init_model(*trained['rass'], device='cpu'), photos[2]))
    done = python('-c', PLAIN, *trained['rass'], photos[2], cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ('model', 'inferencer'):
        assert np.array_equal(np.load(tmp_path / f'{name}.npy'), expected)


PLAIN = """
import sys
import numpy as np
from mmseg.apis import MMSegInferencer, inference_model, init_model
config, checkpoint, photo = sys.argv[1:]
np.save('model.npy', inference_model(init_model(config, checkpoint, 'cpu'), photo).pred_sem_seg.data[0].numpy())
np.save('inferencer.npy', MMSegInferencer(config, checkpoint, device='cpu')(photo)['predictions'])
"""


def test_restore_then_segment_works_too(trained, photos, tiny_base):
    config = Config.fromfile(trained['resnet'][0])
    restorer = {'type': 'mmseg.FakeRestorer'}
    MODELS.register_module(name='FakeRestorer', module=torch.nn.Identity, force=True)
    config.model = ConfigDict(type='RestoreThenSegment', restorer=restorer, segmentor=config.model)
    model = init_model(config, trained['resnet'][1], device='cpu')
    plain = init_model(*trained['resnet'], device='cpu')
    for photo, result in zip(photos, inference_model(model, photos), strict=True):
        assert np.array_equal(labels(result), labels(inference_model(plain, photo)))
        assert 'seg_logits' in result


def test_more_logits_than_the_limit_are_an_error_that_names_the_switch(trained, photos, monkeypatch):
    model = init_model(*trained['rass'], device='cpu')
    expected = labels(inference_model(model, photos[2]))
    monkeypatch.setattr(logits, 'KEPT_LOGITS', 3 * 130 * 75 - 1)
    with pytest.raises(ConfigError, match=r'keep_logits=False'):
        inference_model(model, photos[2])
    assert 'seg_logits' in inference_model(model, photos[0])
    model.test_cfg.keep_logits = False
    result = inference_model(model, photos[2])
    assert 'seg_logits' not in result and np.array_equal(labels(result), expected)
    model.test_cfg.keep_logits = True
    assert 'seg_logits' in inference_model(model, photos[2])


def test_plain_prediction_keeps_no_logits_and_loops_neither(trained):
    model = init_model(*trained['rass'], device='cpu')
    data = {
        'inputs': [torch.zeros(3, 64, 64, dtype=torch.uint8)],
        'data_samples': [SegDataSample(metainfo={'ori_shape': (64, 64)})],
    }
    hook, runner = logits.LabelsOnlyHook(), running(model, IoUMetric())
    for before, after in ((hook.before_val, hook.after_val), (hook.before_test, hook.after_test)):
        before(runner)
        assert 'seg_logits' not in model.test_step(copy.deepcopy(data))[0]
        after(runner)
        assert 'seg_logits' in model.test_step(copy.deepcopy(data))[0]
    wrapped = MODELS.build({'type': 'SegTTAModel', 'module': model})
    hook.before_test(running(wrapped, IoUMetric()))
    assert 'seg_logits' in model.test_step(copy.deepcopy(data))[0]


@pytest.mark.parametrize('declared', [True, False, None])
def test_evaluators_that_may_read_logits_get_them(trained, declared):
    model, metric = init_model(*trained['rass'], device='cpu'), DumpResults('unused.pkl')
    if declared is not None:
        metric.needs_logits = declared
    logits.LabelsOnlyHook().before_val(running(model, IoUMetric(), metric))
    data = {'inputs': [torch.zeros(3, 64, 64, dtype=torch.uint8)]}
    sample = model.test_step({**data, 'data_samples': [SegDataSample(metainfo={'ori_shape': (64, 64)})]})[0]
    assert ('seg_logits' in sample) == (declared is not False)


def test_a_config_with_contradictions_is_left_to_the_runner(trained, tmp_path):
    text = Path(trained['resnet'][0]).read_text() + 'model = dict(decode_head=dict(num_classes=7))\n'
    (tmp_path / 'wrong.py').write_text(text)
    config = Config.fromfile(tmp_path / 'wrong.py')
    assert config.model.decode_head.num_classes == 7
    with pytest.raises(ConfigError, match='num_classes=7'):
        follow_classes(config)
    config.merge_from_dict({'model.decode_head.num_classes': 3})
    follow_classes(config)
    assert isinstance(MODELS.build(config.model), EncoderDecoder)
