"""`rass_mm.load_segmentor` and `rass_mm.load_restorer` in Python programs."""

import os
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from mmseg.apis import inference_model, init_model
from PIL import Image, features
from tiny_segmentors import SCENES, shipped, write_checkpoint

import rass_mm
from rass_mm.errors import AdapterError, BaseFolderError, CheckpointError, ConfigError, DataError
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.overlay import GAP, LINE, legend
from rass_mm.inference.photos import as_picture, read_bgr
from rass_mm.inference.results import Restoration, Segmentation
from rass_mm.inference.segment import segment_files
from rass_mm_cli.main import main

R2S = 'baselines/resnet_scenes_tiny_r2s.py'


@pytest.fixture(scope='module')
def segmentor(trained):
    return rass_mm.load_segmentor(trained.plain.file, device='cpu')


def test_every_kind_of_input_gives_the_labels_of_mmseg(trained, segmentor, photos):
    file = photos / 'wide.png'
    rgb = np.asarray(Image.open(file).convert('RGB'))
    config = trained.plain.config.copy()
    config.test_pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    model = init_model(config, str(trained.plain.file), 'cpu')
    expected = inference_model(model, np.ascontiguousarray(rgb[..., ::-1])).pred_sem_seg.data[0].numpy()
    found = segmentor.predict([file, str(file), rgb, Image.open(file), rgb.astype(np.uint16) * 257, rgb / 255])
    assert len(found) == 6 and all(np.array_equal(one.labels, expected) for one in found)
    assert found[0].labels.dtype == np.uint8 and np.array_equal(found[0].image, rgb)


def test_pillows_images_are_turned_like_files(segmentor, photos):
    file = photos / 'sub' / 'turned.jpg'
    assert segmentor.predict(file).labels.shape == (90, 60)
    assert segmentor.predict(Image.open(file)).labels.shape == (90, 60)


@pytest.mark.parametrize('kind', ['AVIF', 'JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', [3, 6])
def test_every_type_of_file_is_turned(tmp_path, kind, orientation):
    if kind == 'AVIF' and not features.check('avif'):
        pytest.skip('this Pillow has no AVIF')
    upright = np.zeros((40, 24, 3), np.uint8)
    upright[:20, :12] = 255  # the upper left quarter
    stored = np.ascontiguousarray(np.rot90(upright, {3: 2, 6: 1}[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / 'photo', kind, exif=exif)
    image = read_bgr(tmp_path / 'photo')
    assert image.shape == upright.shape and np.abs(image.astype(int) - upright)[::5, ::5].max() < 60


def test_a_grey_array_is_a_grey_file(segmentor, photos):
    grey = cv2.imread(str(photos / 'grey.png'), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(segmentor.predict(grey).labels, segmentor.predict(photos / 'grey.png').labels)


@pytest.mark.parametrize('reduce', [False, True])
def test_the_ids_of_a_single_channel_mean_the_same_as_in_training(tmp_path, reduce):
    """mmseg learns ids 0 and 1 as they are loaded. With `reduce_zero_label`, id 0 is the class."""
    own = dict(type='BaseSegDataset', reduce_zero_label=reduce, pipeline=[dict(type='LoadAnnotations')])
    head = {'num_classes': 1, 'loss_decode.use_sigmoid': True}
    config = shipped(
        'baselines/resnet_scenes_tiny.py',
        **{f'model.decode_head.{key}': value for key, value in head.items()},
        train_dataloader=dict(dataset=dict(_delete_=True, metainfo=dict(classes=('thing',)), **own)),
    )
    file = write_checkpoint(tmp_path / 'one.pth', config, {'dataset_meta': {'classes': ('thing',)}})
    names = rass_mm.load_segmentor(file, device='cpu').classes
    assert names == (['thing', 'background'] if reduce else ['background', 'thing'])


@pytest.mark.parametrize(
    ('image', 'said'),
    [
        (np.zeros((4, 4, 4), np.uint8), 'shape'),
        (np.zeros((4, 4, 3), np.int64), 'type int64'),
        (np.full((4, 4, 3), 200.0, np.float32), 'in \\[0, 1\\]'),
        (np.full((4, 4, 3), np.nan, np.float32), 'in \\[0, 1\\]'),
        (np.zeros((0, 4, 3), np.uint8), 'shape'),
        (3, 'not an image'),
        ('absent.png', 'absent.png: the image cannot be read'),
    ],
)
def test_other_inputs_are_refused(segmentor, image, said):
    with pytest.raises(DataError, match=said):
        segmentor.predict(image)


def test_a_result_knows_its_classes_and_saves_itself(segmentor, photos, tmp_path):
    found = segmentor.predict(photos / 'a.png')
    assert list(found.classes) == list(SCENES['classes']) and sum(found.shares.values()) == pytest.approx(1)
    name, share = next(iter(found.shares.items()))
    assert share == (found.labels == SCENES['classes'].index(name)).mean() == max(found.shares.values())
    found.save(tmp_path / 'new' / 'a.png')
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'new' / 'a.png')), found.labels)
    overlay = found.overlay()
    assert overlay.dtype == np.uint8 and overlay.shape[1] == 480 and overlay.shape[0] > 480 * 91 / 75


def test_the_overlay_is_the_photo_in_the_colours_of_the_labels(segmentor, photos):
    found = segmentor.predict(photos / 'a.png')
    overlay, factor = found.overlay(opacity=1), 480 / 75
    rows, columns = (np.arange(5, side, 7) for side in found.labels.shape)
    painted = overlay[((rows + 0.5) * factor).astype(int)[:, None], ((columns + 0.5) * factor).astype(int)]
    assert np.array_equal(painted, np.array(SCENES['palette'])[found.labels[rows[:, None], columns]])
    assert np.array_equal(found.overlay(opacity=0)[0, 0], found.image[0, 0])


def test_a_legend_of_150_classes_shows_every_colour_and_the_whole_name():
    names = [f'a class of number {i}' for i in range(150)]
    palette = [(i, 255 - i, 7 * i % 256) for i in range(150)]
    strip = legend(1600, names, palette, dict.fromkeys(range(150), 1 / 150))
    assert strip.shape[1] == 1600 and strip.shape[0] < 800
    for label in range(150):
        alone = legend(1600, names, palette, {label: 1 / 150})
        columns = np.flatnonzero((alone < 255).any((0, 2)))
        width = columns[-1] - columns[0]  # of its colour, name and share
        assert width > 150
        rows, lefts = np.nonzero((strip == palette[label]).all(-1))
        top, left = rows.min() - GAP - 1, lefts.min() - GAP - 1
        cell = strip[top + GAP : top + GAP + LINE - 4, left + GAP : left + GAP + width]
        assert np.array_equal(cell, alone[GAP : GAP + LINE - 4, GAP : GAP + width]), names[label]


def test_the_shell_and_python_give_the_same(trained, segmentor, photos, tmp_path):
    given = ['segment', photos, tmp_path / 'out', '--checkpoint', trained.plain.file, '--device', 'cpu']
    assert main([str(part) for part in given]) == 0
    for name in ('a.png', 'sub/turned.jpg'):
        segmentor.predict(photos / name).save(tmp_path / 'one.png')
        written = (tmp_path / 'out' / 'labels' / name).with_suffix('.png')
        assert written.read_bytes() == (tmp_path / 'one.png').read_bytes()


def test_restore_then_segment_shows_what_it_restored(trained, tiny_base, adapter, photos, tmp_path):
    config = shipped(R2S, **{'model.restorer.adapter': str(adapter), 'model.restorer.base': str(tiny_base)})
    segmentor = rass_mm.load_segmentor(trained.plain.file, config, device='cpu', dtype='float32')
    found = segmentor.predict(photos / 'wide.png')
    image = torch.from_numpy(np.ascontiguousarray(found.image[..., ::-1])).permute(2, 0, 1)
    expected = segmentor.model.restore([image])[0].permute(1, 2, 0).numpy()[..., ::-1]
    assert np.array_equal(found.restored, expected) and (expected != found.image).any()
    plain = rass_mm.load_segmentor(trained.plain.file, device='cpu')
    assert np.array_equal(found.labels, plain.predict(expected).labels)
    with pytest.raises(ConfigError, match='--restored'):
        segment_files(photos, tmp_path / 'no', lambda: plain, SegmentOptions(), restored=True)
    segment_files(photos / 'wide.png', tmp_path / 'out', lambda: segmentor, SegmentOptions(), restored=True)
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'out' / 'restored' / 'wide.png')), expected)


def test_a_large_photo_is_restored_in_windows(trained, tiny_base, adapter):
    config = shipped(R2S, **{'model.restorer.adapter': str(adapter), 'model.restorer.base': str(tiny_base)})
    segmentor = rass_mm.load_segmentor(trained.plain.file, config, device='cpu')
    inner, sizes = segmentor.model.restorer.restorer.model, set()
    encode = inner.encode

    def noting(images, *others):
        sizes.add(tuple(images.shape[2:]))
        return encode(images, *others)

    inner.encode = noting
    segmentor.predict(np.zeros((300, 300, 3), np.uint8))
    assert sizes == {(96, 96)} and segmentor.model.restorer.window is None


def test_a_relative_base_is_found_from_another_directory(tiny_base, tmp_path, monkeypatch):
    shelf = tmp_path / 'shelf'
    shelf.mkdir()
    (shelf / 'mine').symlink_to(tiny_base)
    monkeypatch.setenv('RASS_MM_BASES', str(shelf))
    config = shipped('rass/rass_scenes_tiny.py', **{'model.backbone.base': ['bases/mine']})
    file = write_checkpoint(tmp_path / 'rass.pth', config)
    (tmp_path / 'elsewhere').mkdir()
    monkeypatch.chdir(tmp_path / 'elsewhere')
    assert rass_mm.load_segmentor(file, device='cpu').classes == list(SCENES['classes'])
    monkeypatch.delenv('RASS_MM_BASES')
    with pytest.raises(BaseFolderError) as caught:
        rass_mm.load_segmentor(file, device='cpu')
    message = str(caught.value)
    assert f'{tmp_path}/elsewhere/bases/mine' in message and '--base' in message and 'RASS_MM_BASES' in message
    assert rass_mm.load_segmentor(file, base=tiny_base, device='cpu').model.backbone.base.folder == tiny_base


def test_what_cannot_be_loaded_is_named(trained, tiny_base, adapter, tmp_path):
    with pytest.raises(ConfigError, match='has none'):
        rass_mm.load_segmentor(trained.plain.file, base=tiny_base)
    with pytest.raises(CheckpointError, match='does not exist'):
        rass_mm.load_segmentor(tmp_path / 'absent.pth')
    for dtype in ('float8', torch.int8):
        with pytest.raises(ConfigError, match='dtype'):
            rass_mm.load_segmentor(trained.plain.file, dtype=dtype)
    folder = Path(trained.plain.file).parent
    with pytest.raises(CheckpointError, match=r'is a folder\. Pass a file in it, e\.g\. .*\.pth'):
        rass_mm.load_segmentor(folder)
    with pytest.raises(CheckpointError, match=r'is a folder\. It contains no \.pth'):
        rass_mm.load_segmentor(tmp_path)
    with pytest.raises(CheckpointError, match='not a checkpoint'):
        rass_mm.load_segmentor(adapter)


def test_a_merged_adapter_that_was_moved_is_named_with_its_key(trained, tmp_path, capsys, photos):
    config = trained.rass.config.copy()
    config.merge_from_dict({'model.backbone.scr_adapter': str(tmp_path / 'moved.safetensors')})
    loaded = torch.load(trained.rass.file, weights_only=True)
    loaded['meta']['cfg'] = config.pretty_text
    torch.save(loaded, tmp_path / 'rass.pth')
    with pytest.raises(AdapterError, match=r'moved\.safetensors \(model\.backbone\.scr_adapter in its config\)'):
        rass_mm.load_segmentor(tmp_path / 'rass.pth', device='cpu')
    given = ['segment', photos / 'a.png', tmp_path / 'out', '--checkpoint', tmp_path / 'rass.pth', '--device', 'cpu']
    assert main([str(part) for part in given]) == 1
    assert '--cfg-options model.backbone.scr_adapter=FILE' in capsys.readouterr().err


def test_torch_dtypes_are_names_of_precisions(trained, tiny_base, adapter):
    assert rass_mm.load_segmentor(trained.plain.file, device='cpu', dtype=torch.bfloat16).dtype == 'bfloat16'
    restorer = rass_mm.load_restorer(adapter, tiny_base, device='cpu', dtype=torch.bfloat16)
    assert next(restorer.network.parameters()).dtype == torch.bfloat16


def test_results_are_not_written_to_folders_and_unknown_types(tmp_path):
    labels, picture = np.zeros((4, 5), np.uint8), as_picture(np.zeros((4, 5, 3), np.uint8))
    found = Segmentation(labels, ['road'], [(0, 0, 0)], np.zeros((4, 5, 3), np.uint8))
    restored = Restoration(picture.pixels, picture)
    for result, name in ((found, 'labels.png'), (restored, 'restored.png')):
        with pytest.raises(DataError, match=f'is a folder. Pass the name of a file in it, e.g. .*/{name}'):
            result.save(tmp_path)
    for name in ('restored', 'restored.xyz'):
        with pytest.raises(DataError, match='cannot be written. Use .bmp, .jpeg'):
            restored.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_restorer_needs_no_attribute_of_itself(tiny_base, adapter, photos, tmp_path):
    restorer = rass_mm.load_restorer(adapter, tiny_base, device='cpu', options=RestoreOptions(window=64, overlap=32))
    file = photos / 'wide.png'
    rgb = np.asarray(Image.open(file).convert('RGB'))
    found = restorer.predict([file, rgb, Image.open(file)])
    assert all(np.array_equal(one.pixels, found[0].pixels) for one in found)
    assert found[0].pixels.shape == (110, 150, 3) and found[0].source.alpha is not None
    found[0].save(tmp_path / 'one.png')
    restore_files(file, tmp_path / 'same.png', lambda: restorer.network, restorer.options)
    assert (tmp_path / 'one.png').read_bytes() == (tmp_path / 'same.png').read_bytes()


def test_an_image_that_the_network_cannot_take_does_not_end_the_job(trained, photos, tmp_path, monkeypatch):
    segmentor = rass_mm.load_segmentor(trained.plain.file, device='cpu')
    forward = segmentor.model.backbone.forward

    def failing(images):
        if images.shape[2:] == (64, 64):
            raise RuntimeError('Kernel size can not be greater than actual input size')
        return forward(images)

    monkeypatch.setattr(segmentor.model.backbone, 'forward', failing)
    with pytest.raises(DataError, match=r'1 of 6(.|\n)*deep\.png: The network fails on an image of 64x64(.|\n)*Kernel'):
        segment_files(photos, tmp_path / 'out', lambda: segmentor, SegmentOptions())
    assert len(list((tmp_path / 'out' / 'labels').rglob('*.png'))) == 5
    monkeypatch.setattr(segmentor.model.backbone, 'forward', Mock(side_effect=MemoryError))
    with pytest.raises(DataError, match='Too little memory(.|\n)*--window'):
        segmentor.predict(photos / 'a.png')


def test_a_model_that_cannot_be_built_is_named(trained, tmp_path):
    for option, said in ({'model.type': 'Unheard'}, 'Unheard'), ({'model.backbone.unheard': 1}, 'unheard'):
        config = trained.plain.config.copy()
        config.merge_from_dict(option)
        with pytest.raises(ConfigError, match=f'cannot be built(.|\n)*{said}'):
            rass_mm.load_segmentor(trained.plain.file, config, device='cpu')


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError, match='load_segmenter'):
        _ = rass_mm.load_segmenter
    assert {'load_segmentor', 'load_restorer'} <= set(rass_mm.__all__) and os.path.isfile(rass_mm.__file__)
