"""R2S equals restoring to files and segmenting these; its checkpoints are the plain segmentor's."""

import copy
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint, save_checkpoint
from mmengine.structures import PixelData
from mmseg.models import SegTTAModel
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

import rass_mm
from rass_mm.apis import prepare_config
from rass_mm.apis import test as run_test
from rass_mm.config import load_config
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.engine.packing import can_pack
from rass_mm.engine.ready import Preparation, prepare
from rass_mm.errors import AdapterError, CheckpointError, ConfigError
from rass_mm.inference import RestoreOptions, restore_files, restore_image
from rass_mm.segmentation import FileRestorer

CONFIG = 'baselines/resnet_scenes_tiny_r2s.py'
SLIDE = dict(mode='slide', crop_size=(64, 64), stride=(32, 48))
IDENTITY = dict(type=torch.nn.Identity)
READ = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]


@pytest.fixture
def config(adapter, tiny_base):
    """The model of the shipped config with the random restorer."""
    init_default_scope('mmseg')
    model = Config.fromfile(str(rass_mm.config_path(CONFIG))).model
    model.restorer.update(adapter=str(adapter), base=str(tiny_base))
    return model


def make(config, **options):
    torch.manual_seed(0)
    config = copy.deepcopy(config)
    for key, value in options.items():
        config[key] = value  # `update` would merge
    return MODELS.build(config).eval()


@pytest.fixture
def images(scenes, tmp_path):
    """A folder with two degraded scenes, cut to an odd size."""
    (tmp_path / 'lq').mkdir()
    for file in sorted((scenes / 'img_lq' / 'val').glob('*.png'))[:2]:
        cv2.imwrite(str(tmp_path / 'lq' / file.name), cv2.imread(str(file))[:75, :91])
    return tmp_path / 'lq'


def predictions(model, folder, steps=READ):
    """Predictions for the images of a folder, read as a test reads them, in one batch."""
    pipeline = Compose(steps)
    loaded = [pipeline({'img_path': str(file), 'reduce_zero_label': False}) for file in sorted(folder.glob('*.png'))]
    data = {key: [one[key] for one in loaded] for key in ('inputs', 'data_samples')}
    with torch.no_grad():
        return model.test_step(data)


def check_equal(ours, theirs, size=(75, 91)):
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        assert one.seg_logits.shape[-2:] == one.pred_sem_seg.shape[-2:] == size
        torch.testing.assert_close(one.seg_logits.data, other.seg_logits.data, rtol=0, atol=1e-5)
        assert torch.equal(one.pred_sem_seg.data, other.pred_sem_seg.data)


@pytest.mark.parametrize(('mode', 'divisor'), [(dict(mode='whole'), 32), (SLIDE, None)], ids=['whole', 'slide'])
def test_equals_restoring_to_files_and_segmenting_these(config, adapter, tiny_base, images, tmp_path, mode, divisor):
    config.segmentor.test_cfg = mode
    config.segmentor.data_preprocessor.test_cfg = divisor and dict(size_divisor=divisor)
    model = make(config)
    restore_files(images, tmp_path / 'restored', lambda: load_restorer(adapter, tiny_base), RestoreOptions(), {})
    ours = predictions(model, images)
    check_equal(ours, predictions(model.segmentor, tmp_path / 'restored'))
    plain = predictions(model.segmentor, images)
    assert (ours[0].seg_logits.data - plain[0].seg_logits.data).abs().max() > 1e-2
    assert ours[0].metainfo['ori_shape'] == (75, 91) and ours[0].img_path.startswith(str(images))


def test_results_have_the_size_of_the_file_where_the_pipeline_resizes(config, images):
    resized = [READ[0], dict(type='Resize', scale=(60, 60), keep_ratio=True), READ[1]]
    prediction = predictions(make(config), images, resized)[0]
    assert prediction.metainfo['img_shape'] == (49, 60)
    assert prediction.pred_sem_seg.shape == (75, 91)


def test_windows_are_those_of_the_restore_command(adapter, tiny_base):
    image = np.random.default_rng(0).random((75, 150, 3), np.float32)
    planes = torch.from_numpy(image * 2 - 1).permute(2, 0, 1)[None]
    ours = FileRestorer(str(adapter), str(tiny_base), window=96, overlap=64, window_batch=2)(planes)
    theirs = restore_image(image, load_restorer(adapter, tiny_base), RestoreOptions(window=96, overlap=64), 32)
    torch.testing.assert_close((ours[0].permute(1, 2, 0) + 1) / 2, torch.from_numpy(theirs), rtol=0, atol=1e-5)
    assert (ours - FileRestorer(str(adapter), str(tiny_base))(planes)).abs().max() > 1e-3


def test_precision_and_autoencoder_reach_the_restorer(adapter, tiny_base, monkeypatch):
    planes = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    exact, coarse = (FileRestorer(str(adapter), str(tiny_base), dtype=name) for name in ('float32', 'bfloat16'))
    assert {parameter.dtype for parameter in coarse.restorer.model.parameters()} == {torch.bfloat16}
    assert 0 < (exact(planes) - coarse(planes)).abs().max() < 0.3
    given = []
    module = 'rass_mm.segmentation.restore_then_segment.load_restorer'
    monkeypatch.setattr(module, lambda *args, **kwargs: given.append(args) or torch.nn.Identity())
    FileRestorer(str(adapter), str(tiny_base), autoencoder='weights/taesd')
    assert given == [(str(adapter), str(tiny_base), 'weights/taesd')]


def test_test_time_augmentation_merges_predictions_on_restored_images(config, images):
    # The runner gives every model what stands at a config's top level.
    wrapped = SegTTAModel(module=copy.deepcopy(config), data_preprocessor=config.segmentor.data_preprocessor).eval()
    model = wrapped.module
    turned = [[dict(type='RandomFlip', prob=prob, direction='horizontal')] for prob in (0.0, 1.0)]
    scales = [[dict(type='Resize', scale_factor=factor, keep_ratio=True)] for factor in (1.0, 1.25)]
    choices = [sum(scales, []), sum(turned, []), [READ[1]]]
    steps = [READ[0], dict(type='TestTimeAug', transforms=choices)]
    loaded = Compose(steps)({'img_path': str(next(images.glob('*.png')))})
    data = {key: [[one] for one in values] for key, values in loaded.items()}
    with torch.no_grad():
        merged = wrapped.test_step(copy.deepcopy(data))[0].pred_sem_seg.data
        data['inputs'] = [model.restore(inputs) for inputs in data['inputs']]
        expected = SegTTAModel(module=model.segmentor).test_step(data)[0].pred_sem_seg.data
    assert len(data['inputs']) == 4 and merged.shape[-2:] == (75, 91)
    assert torch.equal(merged, expected)


def test_images_alone_are_enough(config):
    model = make(config)
    image = torch.randint(0, 256, (1, 3, 50, 70), dtype=torch.uint8)
    with torch.no_grad():
        prediction, raw = model(image, mode='predict')[0], model(image)
    assert prediction.pred_sem_seg.shape == (50, 70)
    assert raw.shape[:2] == (1, 12)


def random_batch(*sizes):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    labels = [torch.randint(0, 12, (1, *size), generator=generator) for size in sizes]
    samples = [
        SegDataSample(gt_sem_seg=PixelData(data=label), metainfo={'img_shape': size})
        for label, size in zip(labels, sizes, strict=True)
    ]
    return {'inputs': inputs, 'data_samples': samples}


def test_training_reaches_the_segmentor_alone_and_reads_restored_images(config):
    config.segmentor.decode_head.dropout_ratio = 0.0
    model = make(config).train()
    data = random_batch((96, 96), (80, 64))  # padded to one size, after restoration
    restored = {'inputs': model.restore(data['inputs']), 'data_samples': copy.deepcopy(data['data_samples'])}
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    expected = model.segmentor(**model.segmentor.data_preprocessor(restored, True), mode='loss')
    assert losses['decode.loss_ce'].item() == pytest.approx(expected['decode.loss_ce'].item(), rel=1e-5)
    model.parse_losses(losses)[0].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.restorer.parameters())
    assert not any(module.training for module in model.restorer.modules())
    assert {id(p) for p in model.parameters()} == {id(p) for p in model.segmentor.parameters()}


def test_restorer_is_the_same_under_mixed_precision_and_moves_with_the_model(config):
    model = make(config)
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    exact = model.restore([image])[0]
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(model.restore([image])[0], exact)
    assert next(model.to(torch.float64).restorer.parameters()).dtype == torch.float64
    assert next(copy.deepcopy(model).to('meta').restorer.parameters()).is_meta


@pytest.mark.parametrize('loader', ['torch', 'mmengine'])
def test_checkpoints_of_the_plain_segmentor_and_of_this_model_are_the_same(config, tmp_path, loader):
    plain = make(config.segmentor)
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1)
    model = make(config)
    file = str(tmp_path / 'plain.pth')
    save_checkpoint({'state_dict': get_state_dict(plain), 'meta': {}}, file)
    if loader == 'torch':
        model.load_state_dict(torch.load(file)['state_dict'])
    else:
        load_checkpoint(model, file, strict=True)
    expected = plain.state_dict()
    for state in (model.state_dict(), get_state_dict(model)):
        assert state.keys() == expected.keys()
        assert all(torch.equal(value, expected[key]) for key, value in state.items())
    again = make(config.segmentor)
    again.load_state_dict(model.state_dict())
    wrapped = SegTTAModel(module=make(config, restorer=IDENTITY))
    load_checkpoint(wrapped, file, strict=True)
    assert all(torch.equal(value, expected[key]) for key, value in wrapped.module.state_dict().items())


@pytest.mark.parametrize('fault', ['missing', 'unknown', 'of another shape'])
def test_checkpoint_that_does_not_fit_is_refused_even_without_strict(config, tmp_path, fault):
    model = make(config, restorer=IDENTITY)
    state, key = get_state_dict(model), 'backbone.layer1.0.conv1.weight'
    if fault == 'missing':
        del state[key]
    elif fault == 'unknown':
        state['segmentor.' + key] = state[key]
    else:
        state[key] = state[key][:-1]
    state = {name: value + 1 if name != key else value for name, value in state.items()}
    save_checkpoint({'state_dict': state, 'meta': {}}, str(tmp_path / 'bad.pth'))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f'1 {fault}: .*{key}'):
        load_checkpoint(model, str(tmp_path / 'bad.pth'), strict=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_old_checkpoint_without_batch_counters_loads(config):
    model = make(config, restorer=IDENTITY)
    state = {key: value for key, value in model.state_dict().items() if not key.endswith('num_batches_tracked')}
    assert len(state) < len(model.state_dict())
    model.load_state_dict(state)


def test_rass_behind_a_restorer_checks_its_provenance(config, tiny_base, other_base):
    rass = Config.fromfile(str(rass_mm.config_path('rass/rass_scenes_tiny.py'))).model
    rass.backbone.base = str(tiny_base)
    plain, model = make(rass), make(config, segmentor=rass, restorer=IDENTITY)
    with torch.no_grad():
        plain.decode_head.conv_seg.weight.add_(1)
    model.load_state_dict(plain.state_dict())
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(model.segmentor.decode_head.conv_seg.weight, plain.decode_head.conv_seg.weight)
    with torch.no_grad():
        assert model(random_batch((50, 70))['inputs'], mode='predict')[0].pred_sem_seg.shape == (50, 70)
    rass.backbone.base = str(other_base)
    with pytest.raises(CheckpointError, match='another base'):
        make(config, segmentor=rass, restorer=IDENTITY).load_state_dict(plain.state_dict())


def test_any_registered_network_restores(config):
    model = make(config, restorer=IDENTITY)
    image = torch.arange(256, dtype=torch.uint8).repeat(3, 5, 1)
    assert torch.equal(model.restore([image])[0], image)
    assert not any(key.startswith('restorer') for key in model.state_dict())


def test_network_of_mmagic_comes_by_its_scope_and_with_its_weights(config, tmp_path):
    pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    import rass_mm.restoration  # noqa: F401  (prepares mmagic)

    network = dict(
        type='mmagic.BaseEditModel',
        _scope_='mmagic',
        generator=dict(type='SRCNNNet', upscale_factor=1),
        pixel_loss=dict(type='L1Loss'),
    )
    trained = make(config, restorer=network).restorer
    torch.nn.init.normal_(trained.generator.conv1.bias)
    save_checkpoint({'state_dict': trained.state_dict()}, str(tmp_path / 'srcnn.pth'))
    network['init_cfg'] = dict(type='Pretrained', checkpoint=str(tmp_path / 'srcnn.pth'))
    model = make(config, restorer=network)
    state = torch.load(tmp_path / 'srcnn.pth')['state_dict']
    assert all(torch.equal(value, state[key]) for key, value in model.restorer.state_dict().items())
    assert model.restore([torch.zeros(3, 20, 30, dtype=torch.uint8)])[0].shape == (3, 20, 30)


class Doubling(torch.nn.Module):
    def forward(self, images):
        return images.repeat_interleave(2, -1)


class Diverging(torch.nn.Module):
    def forward(self, images):
        return images / 0


def test_restorer_that_gives_another_size_or_nan_is_refused(config):
    images = random_batch((32, 48))['inputs']
    with pytest.raises(ConfigError, match=r'\(1, 3, 32, 96\) for an input of \(1, 3, 32, 48\)'):
        make(config, restorer=dict(type=Doubling)).restore(images)
    with pytest.raises(AdapterError, match='NaN or infinity'):
        make(config, restorer=dict(type=Diverging)).restore(images)


def test_missing_parts_are_named(config):
    config.restorer.adapter = 'nowhere/scr.safetensors'
    with pytest.raises(AdapterError, match='nowhere/scr.safetensors does not exist.*model.restorer.adapter=FILE'):
        make(config)
    del config.segmentor['data_preprocessor']
    with pytest.raises(ConfigError, match='no data_preprocessor'):
        make(config)


def test_segmentors_own_data_preprocessor_goes_before_the_configs(config):
    other = dict(config.segmentor.data_preprocessor, test_cfg=dict(size_divisor=64))
    assert (
        make(config, restorer=IDENTITY, data_preprocessor=other).segmentor.data_preprocessor.test_cfg['size_divisor']
        == 32
    )
    del config.segmentor['data_preprocessor']
    assert (
        make(config, restorer=IDENTITY, data_preprocessor=other).segmentor.data_preprocessor.test_cfg['size_divisor']
        == 64
    )


def test_shipped_config_tests_the_plain_checkpoint(adapter, tiny_base, scenes, tmp_path):
    init_default_scope('mmseg')
    shutil.copytree(scenes / 'ann_dir', tmp_path / 'ann_dir')
    source = scenes / 'img_lq' / 'val'
    restore_files(source, tmp_path / 'restored', lambda: load_restorer(adapter, tiny_base), RestoreOptions(), {})
    root, prefix = 'test_dataloader.dataset.data_root', 'test_dataloader.dataset.data_prefix.img_path'
    runs = {
        CONFIG.replace('_r2s', ''): {root: str(tmp_path), prefix: 'restored'},
        CONFIG: {root: str(scenes), 'model.restorer.adapter': str(adapter), 'model.restorer.base': str(tiny_base)},
    }
    metrics = []
    for name, options in runs.items():
        config = load_config(name, {**options, 'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None})
        if not metrics:
            plain = make(config.model)
            torch.nn.init.normal_(plain.decode_head.conv_seg.weight)
            save_checkpoint({'state_dict': plain.state_dict(), 'meta': {}}, str(tmp_path / 'plain.pth'))
        prepared = prepare_config(config, work_dir=str(tmp_path / 'work'))
        found = run_test(prepared, str(tmp_path / 'plain.pth'), str(tmp_path / 'maps' / name))
        metrics.append({key: found[key] for key in ('mIoU', 'aAcc', 'mAcc')})
    assert metrics[0] == metrics[1] and metrics[0]['aAcc'] > 0
    maps = [{file.name: file.read_bytes() for file in (tmp_path / 'maps' / name).glob('*.png')} for name in runs]
    assert maps[0] == maps[1] and len(maps[0]) == 4


@pytest.mark.parametrize('data', ['scenes', 'camvid'])
def test_shipped_configs_differ_from_the_plain_ones_in_the_model_only(data):
    ours, theirs = (
        Config.fromfile(str(rass_mm.config_path(f'baselines/resnet_{data}_tiny{end}.py'))) for end in ('_r2s', '')
    )
    assert ours.model.segmentor == theirs.model and set(ours.model) == {'type', 'restorer', 'segmentor'}
    assert {key: value for key, value in ours.items() if key != 'model'} == {
        key: value for key, value in theirs.items() if key != 'model'
    }


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_preparation_leaves_the_weights_of_the_segmentor_readable(config, dtype):
    """Some heads and backbones of mmseg compute with the weights of their layers, which is impossible if packed."""
    model = prepare(make(config), Preparation(dtype))
    for module in model.segmentor.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            assert module.weight.layout is torch.strided and not module.weight.is_mkldnn
    assert any('Packed' in type(module).__name__ for module in model.restorer.modules()) or not can_pack()
