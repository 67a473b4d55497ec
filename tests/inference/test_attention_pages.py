"""Attention maps of class names compared with their definition, and `rass-mm attention` from the command line."""

import numpy as np
import pytest
import torch
from commands import python
from PIL import Image

from rass_mm.diffusion.adapter_files import save_adapter
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.diffusion.shared_unet import GENERATOR
from rass_mm.engine.ready import Preparation, prepare
from rass_mm.errors import ConfigError
from rass_mm.inference.attention import attention_page, class_attention, peak_to_mean, strongest
from rass_mm_cli.main import main

CLASSES = ['sky', 'car', 'road', 'traffic light']


@pytest.fixture(scope='module')
def model(tiny_base):
    torch.manual_seed(1)
    restorer = OneStepRestorer(read_base(tiny_base))
    for name, parameter in restorer.unet.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return restorer


@pytest.fixture(scope='module')
def adapter(model, tmp_path_factory):
    path = tmp_path_factory.mktemp('adapter') / 'scr.safetensors'
    model.save(path, model.base.identity, 'ClassTokens', CLASSES)
    return path


@pytest.fixture(scope='module')
def restorer(adapter, tiny_base):
    return load_restorer(adapter, tiny_base)


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).random((64, 96, 3), np.float32)


def reference(restorer, image, layer, token):
    """Computes the attention of a layer to a token from the layer's query and key weights, resized with torch."""
    unet, kept = restorer.model.unet, {}
    attention = unet.get_submodule(layer)
    hook = attention.register_forward_hook(lambda *args: kept.update(inputs=args[1], **args[2]), with_kwargs=True)
    inputs = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    restorer(inputs)
    hook.remove()
    hidden, context = kept['inputs'][0], kept['encoder_hidden_states']
    query, key = attention.to_q(hidden)[0], attention.to_k(context)[0]
    heads = [part.unflatten(-1, (attention.heads, -1)).transpose(0, 1) for part in (query, key)]
    scores = heads[0] @ heads[1].transpose(1, 2) / heads[0].shape[-1] ** 0.5
    table = scores.softmax(-1).mean(0)[:, token]
    height = round((len(table) * image.shape[0] / image.shape[1]) ** 0.5)
    coarse = table.reshape(1, 1, height, -1)
    return torch.nn.functional.interpolate(coarse, image.shape[:2], mode='bilinear')[0, 0].numpy()


def test_map_is_the_mean_over_layers_of_the_attention_to_the_names_token(restorer, image):
    layers = restorer.model.attention_layers
    assert len(layers) > 1
    with torch.inference_mode():
        expected = np.mean([reference(restorer, image, layer, 1) for layer in layers], 0)
    maps = class_attention(restorer, image, CLASSES)
    assert list(maps) == CLASSES and all(values.shape == (64, 96) for values in maps.values())
    np.testing.assert_allclose(maps['car'], expected, atol=1e-5)
    assert np.abs(maps['sky'] - expected).max() > 1e-3
    total = sum(maps.values())
    assert total.min() > 0 and total.max() < 1  # the null token has the remainder


def test_layers_are_chosen_and_nothing_stays_changed(restorer, image):
    before = list(restorer.model.attention_layers)
    middle = class_attention(restorer, image, CLASSES, ['mid_block'])
    assert restorer.model.attention_layers == before
    with torch.inference_mode():
        name = next(name for name in before if name.startswith('mid_block'))
        np.testing.assert_allclose(middle['road'], reference(restorer, image, name, 2), atol=1e-5)
    assert np.abs(middle['road'] - class_attention(restorer, image, CLASSES)['road']).max() > 1e-4
    with pytest.raises(ConfigError, match="no cross-attention at 'nowhere'.*up_blocks"):
        class_attention(restorer, image, CLASSES, ['nowhere'])
    assert restorer.model.attention_layers == before


@pytest.mark.parametrize('size', [(75, 101), (1, 1), (33, 200)])
def test_image_of_any_size_has_maps_of_its_size(restorer, size):
    image = np.random.default_rng(1).random((*size, 3), np.float32)
    maps = class_attention(restorer, image, CLASSES)
    assert all(values.shape == size and np.isfinite(values).all() for values in maps.values())
    whole = np.pad(image, [(0, -size[0] % 32), (0, -size[1] % 32), (0, 0)], mode='reflect')
    np.testing.assert_array_equal(maps['car'], class_attention(restorer, whole, CLASSES)['car'][: size[0], : size[1]])


def test_strongest_maps_come_first_and_flat_ones_last():
    maps = {'flat': np.full((8, 8), 0.5), 'peak': np.eye(8), 'none': np.zeros((8, 8)), 'half': np.eye(8) + 1}
    assert [name for name, _ in strongest(maps.items(), 3)] == ['peak', 'half', 'flat']
    assert peak_to_mean(maps['peak']) == pytest.approx(8)


def test_page_shows_each_map_relative_to_its_own_maximum(image):
    ramp = np.tile(np.linspace(0, 1, 96, dtype=np.float32), (64, 1))
    page = attention_page(image, {'whole': ramp, 'tenth': ramp / 10, 'zero': ramp * 0})
    assert page.dtype == np.uint8 and page.shape[2] == 3
    cells = np.split(page, 4, axis=1)
    pictures = [cell[40:-6, 6:-6] for cell in cells]  # below the caption
    assert pictures[0].shape == (64 * 3, 96 * 3, 3)
    np.testing.assert_array_equal(pictures[0][::3, ::3], np.rint(image * 255).astype(np.uint8))
    np.testing.assert_array_equal(pictures[1], pictures[2])
    assert (cells[1][:40] != cells[2][:40]).any()  # the maximum is written above
    assert pictures[1][:, -1].mean() > pictures[1][:, 0].mean() + 50
    np.testing.assert_array_equal(pictures[3][:, 0], pictures[1][:, 0])


@pytest.mark.parametrize(('size', 'cell'), [((40, 1100), (19, 512)), ((300, 400), (300, 400)), ((1, 1), (224, 224))])
def test_cells_are_at_most_512_pixels_wide_and_not_too_narrow_for_text(size, cell):
    page = attention_page(np.ones((*size, 3), np.float32), {'a': np.ones(size, np.float32)})
    assert page.shape == (cell[0] + 46, 2 * (cell[1] + 12), 3)


def show(adapter, base, out, *images, options=()):
    arguments = [*images, '--adapter', adapter, '--base', base, '--out', out, '--device', 'cpu', *options]
    return main(['attention', *map(str, arguments)])


@pytest.fixture
def file(tmp_path):
    array = np.random.default_rng(2).integers(0, 256, (75, 101, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / 'street.png')
    return tmp_path / 'street.png'


def test_command_writes_a_page_per_image(adapter, tiny_base, file, tmp_path, capsys):
    Image.open(file).convert('L').save(tmp_path / 'grey.jpg')
    assert show(adapter, tiny_base, tmp_path / 'out', file, tmp_path / 'grey.jpg') == 0
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['grey_attention.png', 'street_attention.png']
    assert 'street_attention.png' in capsys.readouterr().out
    page = np.asarray(Image.open(tmp_path / 'out' / 'street_attention.png'))
    assert page.shape == (2 * (225 + 46), 4 * (303 + 12), 3)  # the input and four classes, four per row
    np.testing.assert_array_equal(page[40:265:3, 6:309:3], np.asarray(Image.open(file)))


def test_command_shows_the_requested_classes_and_layers(adapter, restorer, tiny_base, file, tmp_path):
    options = ('--classes', 'road, traffic light', '--layers', 'mid_block')
    assert show(adapter, tiny_base, tmp_path, file, options=options) == 0
    image = np.asarray(Image.open(file)).astype(np.float32) / 255
    maps = class_attention(restorer, image, CLASSES, ['mid_block'])
    expected = attention_page(image, {name: maps[name] for name in ('road', 'traffic light')})
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'street_attention.png')), expected)


def test_unknown_class_is_refused_with_the_list(adapter, tiny_base, file, tmp_path, capsys):
    assert show(adapter, tiny_base, tmp_path / 'out', file, options=('--classes', 'sky,boat')) == 1
    assert "no class 'boat'. Choose from: sky, car, road, traffic light." in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('fault', 'message'),
    [
        ('text', 'broken.png: the image cannot be read'),
        ('absent', 'nowhere.png: the image cannot be read'),
        ('twins', 'would both be written to'),
        ('source', '--out would overwrite the input'),
    ],
)
def test_images_that_cannot_be_shown_are_named(adapter, tiny_base, file, tmp_path, capsys, fault, message):
    (tmp_path / 'broken.png').write_text('no image')
    (tmp_path / 'other').mkdir()
    images = {
        'text': [tmp_path / 'broken.png'],
        'absent': [tmp_path / 'nowhere.png'],
        'twins': [file, tmp_path / 'other' / 'street.png'],
        'source': [file, tmp_path / 'street_attention.png'],
    }[fault]
    assert show(adapter, tiny_base, tmp_path, *images) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('prompt', 'message'), [('EmptyPrompt', 'EmptyPrompt, which names no classes'), (None, 'not a restorer')]
)
def test_adapter_without_class_names_is_refused(model, tiny_base, file, tmp_path, capsys, prompt, message):
    path = tmp_path / 'other.safetensors'
    if prompt:
        model.save(path, model.base.identity, prompt, CLASSES)
    else:
        save_adapter(model.unet, GENERATOR, path, model.base.identity)
    assert show(path, tiny_base, tmp_path, file) == 1
    assert message in capsys.readouterr().err


def test_needs_neither_mmagic_nor_mmseg():
    code = (
        'import sys; sys.modules.update(mmseg=None, mmagic=None); import types, pathlib;'
        'root = types.ModuleType("rass_mm"); root.__path__ = ["rass_mm"]; sys.modules["rass_mm"] = root;'
        'import rass_mm.inference.attention, rass_mm.diffusion.restorer; print("loaded")'
    )
    done = python('-c', code)
    assert done.stdout.strip() == 'loaded', done.stderr


def test_a_prepared_restorer_has_the_same_maps(adapter, tiny_base, image):
    """`load_restorer` of `rass_mm.inference` prepares restorers of full-size bases, whose attention the app shows."""
    names = ['sky', 'car', 'road']
    expected = class_attention(load_restorer(adapter, tiny_base), image, names)
    found = class_attention(prepare(load_restorer(adapter, tiny_base), Preparation('float32')), image, names)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
