"""RAM tagger, tested with a substitute for the package `ram` that has the interface of the published packages."""

import json
import os
import shutil
import sys
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import nn
from torchvision.transforms import Normalize, Resize

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.prompts import NOBODY, Tagger, TagPrompt
from rass_mm.diffusion.ram import RAMTagger
from rass_mm.errors import CheckpointError, ConfigError, InstallationError

NETWORK = '''
import torch
from torch import nn

SEEN, BUILT = [], []


class RAM(nn.Module):
    """Network that returns the name of the brightest channel, and 'bright' or 'dark'."""

    def __init__(self, image_size, vit):
        super().__init__()
        assert vit == 'swin_l'
        self.size, self.scale = image_size, nn.Parameter(torch.rand(3))

    def generate_tag(self, image, threshold=0.68, tag_input=None):
        assert image.shape[1:] == (3, self.size, self.size) and image.dtype == torch.float32
        assert not self.training and not torch.is_autocast_enabled('cpu')
        SEEN.append(image.clone())
        means = (image * self.scale.view(3, 1, 1)).mean((2, 3))
        names = [['red', 'green', 'blue'][row.argmax()] for row in means]
        light = ['bright' if row.mean() > 0 else 'dark' for row in means]
        english = [SEPARATOR.join(pair) for pair in zip(names, light)]
        return english, ['x'] * len(english)


def ram(pretrained='', **kwargs):
    network = RAM(**kwargs)
    BUILT.append(pretrained)
    network.load_state_dict(torch.load(pretrained, map_location='cpu')['model'], strict=False)
    return network
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Provides package(lora=True, models=True), which puts a substitute on the path until the test ends."""

    def install(lora=True, models=True, network=NETWORK):
        folder = tmp_path / 'site' / 'ram'
        folder.mkdir(parents=True)
        (folder / '__init__.py').touch()
        if models:
            (folder / 'models').mkdir()
            (folder / 'models' / '__init__.py').write_text('from .ram import ram\n')
            (folder / 'models' / 'ram.py').write_text(network.replace('SEPARATOR', "' | '"))
        if lora:
            (folder / 'models' / 'ram_lora.py').write_text(network.replace('SEPARATOR', "', '"))
        monkeypatch.syspath_prepend(folder.parent)
        return folder

    yield install
    for name in [name for name in sys.modules if name.partition('.')[0] == 'ram']:
        del sys.modules[name]


@pytest.fixture
def weights(tmp_path):
    """Provides the files of RAM and DAPE. In DAPE, blue is weighted ten times as much."""
    files = {'ram': tmp_path / 'ram.pth', 'dape': tmp_path / 'dape.pth'}
    torch.save({'model': {'scale': torch.ones(3)}, 'epoch': 3}, files['ram'])
    torch.save({'scale': torch.tensor([1.0, 1.0, 10.0])}, files['dape'])
    return files


@pytest.fixture
def tagger(package, weights, tmp_path):
    """Provides tagger(**options), which returns a `RAMTagger` in eval mode with the substitute."""
    package()

    def build(**options):
        return RAMTagger(**{'weights': weights['ram'], 'cache': tmp_path / 'cache', **options}).eval()

    return build


def picture(red=0.0, green=0.0, blue=0.0, size=(20, 30)):
    """Returns (3, H, W) in [-1, 1]. All zeros are mid grey, which RAM tags as 'bright'."""
    return torch.tensor([red, green, blue]).view(3, 1, 1).expand(3, *size).contiguous()


def network_module(name='ram'):
    return sys.modules[f'ram.models.{name}']


def stored(cache):
    return sorted(Path(cache).rglob('*.json'))


RED, GREEN, DARK = picture(red=0.9), picture(green=0.9), picture(-0.6, -1.0, -1.0)


def test_tags_are_those_of_the_package(tagger):
    made = tagger()
    assert isinstance(made, Tagger) and not made.needs_labels
    assert made.tags(torch.stack([RED, GREEN, DARK])) == [['red', 'bright'], ['green', 'bright'], ['red', 'dark']]


def test_images_are_prepared_like_the_transforms_of_the_package(tagger):
    image = torch.rand(1, 3, 50, 37, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tagger(image_size=224).tags(image)
    reference = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(Resize((224, 224))((image + 1) / 2))
    torch.testing.assert_close(network_module().SEEN[0], reference, atol=1e-5, rtol=1e-5)


def test_dape_is_ram_with_its_own_tensors_and_commas(tagger, weights):
    purple = picture(red=0.9, blue=0.6)[None]
    assert tagger().tags(purple) == [['red', 'bright']]
    assert tagger(condition=weights['dape']).tags(purple) == [['blue', 'bright']]


def test_padding_is_not_shown(tagger):
    padded = torch.cat([RED, picture(blue=1.0)], 2)
    assert tagger().tags(padded[None]) == [['blue', 'bright']]
    sample = SegDataSample(metainfo={'img_shape': (20, 30), 'pad_shape': (20, 60)})
    assert tagger().tags(padded[None], [sample]) == [['red', 'bright']]
    larger = SegDataSample(metainfo={'img_shape': (400, 600)})  # for a window, the size of the whole image
    assert tagger().tags(padded[None], [larger]) == [['blue', 'bright']]


def test_released_input_is_padded_and_not_antialiased(tagger):
    image = torch.rand(1, 3, 500, 437, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sample = SegDataSample(metainfo={'img_shape': (500, 431)})
    tagger(padding=True, antialias=False).tags(image, [sample])
    resized = Resize((384, 384), antialias=False)((image + 1) / 2)
    reference = Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(resized)
    torch.testing.assert_close(network_module().SEEN[0], reference, atol=1e-5, rtol=1e-5)


def test_half_precision_is_used_if_the_device_supports_it(tagger, monkeypatch):
    made, seen = tagger(dtype='float16').train(), []
    made.tags(RED[None])
    assert network_module().SEEN[-1].dtype == torch.float32  # a CPU
    monkeypatch.setattr(made, '_dtype_on', lambda device, known=made._dtype_on: known(torch.device('cuda')))
    monkeypatch.setattr(made.network, 'generate_tag', lambda image: (seen.append(image.dtype), ['red'])[::-1])
    made.tags(RED[None])
    assert seen == [torch.float16] and made.network.scale.dtype == torch.float16
    with pytest.raises(ConfigError, match="dtype is 'bfloat16', but it must be one of float32, float16"):
        tagger(dtype='bfloat16')


def test_tags_of_another_resize_or_precision_are_not_reused(tagger):
    folders = {tagger(**options).store.folder for options in ({}, {'antialias': False}, {'dtype': 'float16'})}
    assert len(folders) == 3


@pytest.mark.parametrize('field', [True, False])
def test_clean_crop_is_shown_in_training_only(tagger, field):
    clean = np.zeros((20, 30, 3), np.uint8)
    clean[..., 1] = 250  # BGR
    sample = SegDataSample()
    sample.set_field(clean, 'gt') if field else sample.set_metainfo({'gt': clean})
    made = tagger()
    assert made.tags(RED[None], [sample]) == [['red', 'bright']]
    assert made.train().tags(RED[None], [sample]) == [['green', 'dark']]


def test_tags_of_an_image_are_computed_once_and_kept_on_disk(tagger, tmp_path):
    first = tagger()
    expected = first.tags(torch.stack([RED, GREEN, RED]))
    assert [len(seen) for seen in network_module().SEEN] == [2]
    assert first.tags(torch.stack([GREEN, RED])) == [expected[1], expected[0]]
    again = tagger()
    jitter = 1e-6 * torch.randn(RED.shape)  # possible rounding errors of another device
    eight_bit = torch.stack([RED, GREEN])
    assert again.tags(eight_bit) == expected[:2] and again.network is None
    levels = (torch.arange(256.0).repeat(3, 2, 1) - 127.5) / 127.5
    again.tags(levels[None])
    seen = len(network_module().SEEN)
    again.tags((levels + jitter[:, :2, :1])[None])
    assert len(network_module().SEEN) == seen and len(stored(tmp_path / 'cache' / 'tags')) == 3


def test_the_default_cache_is_in_the_users_folder(tagger, tmp_path, monkeypatch):
    monkeypatch.setenv('RASS_MM_CACHE', str(tmp_path / 'own'))
    tagger(cache=None).tags(RED[None])
    assert len(stored(tmp_path / 'own' / 'tags')) == 1


def test_other_weights_or_sizes_have_separate_tags(tagger, weights):
    purple = picture(red=0.9, blue=0.6)[None]
    assert tagger().tags(purple) == [['red', 'bright']]
    torch.save({'model': {'scale': torch.tensor([1.0, 1.0, 10.0])}, 'epoch': 3}, weights['ram'])
    assert tagger().tags(purple) == [['blue', 'bright']]
    assert tagger(image_size=224).tags(purple) == [['blue', 'bright']]
    assert len(network_module().BUILT) == 3


def test_damaged_cache_file_is_written_again(tagger, tmp_path):
    expected = tagger().tags(RED[None])
    (file,) = stored(tmp_path / 'cache')
    for damage in ('["red", "bri', '7'):
        file.write_text(damage)
        assert tagger().tags(RED[None]) == expected and json.loads(file.read_text()) == expected[0]


def test_nothing_is_cached_in_training(tagger, tmp_path):
    made = tagger().train()
    made.tags(RED[None])
    made.tags(RED[None])
    assert len(network_module().SEEN) == 2 and not stored(tmp_path / 'cache') and not made.network.training


def write_tags(arguments):
    weights, cache, first = arguments
    made = RAMTagger(weights=weights, cache=cache).eval()
    return made.tags(torch.stack([picture(red=0.3 + (first + i) / 100) for i in range(40)]))


def test_processes_may_share_a_cache(tagger, weights, tmp_path):
    cache = tmp_path / 'cache'
    with get_context('fork').Pool(2) as pool:
        answers = pool.map(write_tags, [(weights['ram'], cache, 0), (weights['ram'], cache, 20)], chunksize=1)
    assert all(tags == ['red', 'bright'] for answer in answers for tags in answer)
    files = stored(cache)
    assert len(files) == 60 and all(json.loads(file.read_text()) == ['red', 'bright'] for file in files)
    assert len([path for path in cache.rglob('*') if path.is_file()]) == 60  # no leftovers


def test_network_is_frozen_and_not_part_of_the_model(tagger, tiny_base):
    model = nn.Sequential(TagPrompt(read_base(tiny_base), ['red'], tagger()), nn.Linear(2, 2))
    model.eval()[0](RED[None])
    assert isinstance(model[0].tagger.network, nn.Module)
    assert not any(p.requires_grad for p in model[0].tagger.network.parameters())
    assert [*model.state_dict()] == ['1.weight', '1.bias']
    assert not any(module is model[0].tagger.network for module in model.modules())
    wrapper = build_optim_wrapper(model, {'optimizer': {'type': 'AdamW', 'lr': 1.0}})
    ours = {id(p) for p in model[0].tagger.network.parameters()}
    assert not any(id(p) in ours for group in wrapper.param_groups for p in group['params'])


def test_prompt_uses_the_tags_and_passes_on_its_mode(tagger, tiny_base):
    prompt = TagPrompt(read_base(tiny_base), ['bright', 'red'], tagger()).eval()
    assert not prompt.tagger.training and prompt.train().tagger.training and not prompt.needs_labels
    owners = prompt.eval()(RED[None]).owners[0].tolist()
    assert [owner for owner in owners if owner != NOBODY] == [1] * owners.count(1) + [0] * owners.count(0)
    assert owners.count(0) and owners.count(1)


def test_loading_draws_no_random_numbers(tagger):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    tagger().tags(RED[None])
    assert torch.equal(torch.rand(2), expected)


def test_autocast_does_not_affect_the_network(tagger):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert tagger().tags(RED[None].bfloat16()) == [['red', 'bright']]


def test_it_can_be_built_from_both_registries(tagger, weights, tiny_base, tmp_path):
    from rass_mm.segmentation.prompts import build_prompt

    config = {'type': 'RAMTagger', 'weights': str(weights['ram']), 'cache': str(tmp_path)}
    prompt = build_prompt({'type': 'TagPrompt', 'tagger': config, 'truncate': True}, read_base(tiny_base), ['red'])
    assert isinstance(prompt.tagger, RAMTagger) and MODELS.get('RAMTagger') is RAMTagger
    pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')
    import rass_mm.restoration  # noqa: F401  (registers)

    # isort: split
    from mmagic.registry import MODELS as RESTORATION

    assert RESTORATION.get('RAMTagger') is RAMTagger


def test_meta_device_needs_neither_package_nor_weights(tmp_path):
    with torch.device('meta'):
        assert not [*RAMTagger(weights=tmp_path / 'none.pth').parameters()]


def test_missing_package_is_reported_with_its_install_command(weights):
    with pytest.raises(InstallationError, match='needs the package ram .*pip install git'):
        RAMTagger(weights=weights['ram'])


@pytest.mark.parametrize('option', ['weights', 'condition'])
def test_missing_weights_are_reported_with_their_path(option, tagger, tmp_path):
    with pytest.raises(ConfigError, match='nowhere.pth does not exist. Put .*tagger.weights'):
        tagger(**{option: tmp_path / 'nowhere.pth'})


def test_package_of_another_project_is_named(package, weights, tmp_path):
    package(lora=False, models=False)
    made = RAMTagger(weights=weights['ram'], cache=tmp_path / 'cache')
    message = 'has no ram.models. It is another project with that name. Run: pip install'
    with pytest.raises(InstallationError, match=message):
        made.tags(RED[None])


def test_package_without_dape_is_reported_with_packages_that_have_it(package, weights, tmp_path):
    package(lora=False)
    made = RAMTagger(weights=weights['ram'], condition=weights['dape'], cache=tmp_path / 'cache')
    with pytest.raises(InstallationError, match='has no ram.models.ram_lora. DAPE .* SeeSR or OSEDiff'):
        made.tags(RED[None])


@pytest.mark.parametrize(
    'network',
    [
        'from transformers.modeling_utils import functions_that_moved\n',
        'import no_such_dependency\n',
        "raise AttributeError('made for another torch')\n",
    ],
)
def test_package_that_cannot_be_imported_is_reported_with_its_message(network, package, weights, tmp_path):
    package(network=network)
    with pytest.raises(InstallationError, match='(functions_that_moved|no_such_dep|another torch).*transformers 5?'):
        RAMTagger(weights=weights['ram'], cache=tmp_path / 'cache').tags(RED[None])


def test_package_with_another_answer_is_refused(package, weights, tmp_path):
    package(network=NETWORK.replace('return english, ', 'return english[0], '))
    with pytest.raises(InstallationError, match='one text per image'):
        RAMTagger(weights=weights['ram'], cache=tmp_path / 'cache').tags(torch.stack([RED, GREEN]))


class Bomb:
    """Object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize('which', ['ram', 'dape'])
def test_weights_with_code_are_refused_and_not_run(which, tagger, weights, tmp_path):
    torch.save({'model': {}, 'config': Bomb(tmp_path / 'exploded')}, weights[which])
    made = tagger(condition=weights['dape'])
    with pytest.raises(CheckpointError, match=f'{which}.pth was not loaded'):
        made.tags(RED[None])
    assert not (tmp_path / 'exploded').exists()


def test_truncated_and_foreign_weights_are_refused(tagger, weights):
    whole = weights['ram'].read_bytes()
    weights['ram'].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match='ram.pth is damaged or incomplete'):
        tagger().tags(RED[None])
    torch.save({'state_dict': {}}, weights['ram'])
    with pytest.raises(CheckpointError, match='ram.pth contains no dict of tensors'):
        tagger().tags(RED[None])
    weights['ram'].write_bytes(whole)
    torch.save({'scale': torch.ones(4)}, weights['dape'])
    with pytest.raises(CheckpointError, match='dape.pth does not match RAM'):
        tagger(condition=weights['dape']).tags(RED[None])
    shutil.copy(weights['ram'], weights['dape'])
    with pytest.raises(CheckpointError, match='dape.pth contains none of the tensors of DAPE'):
        tagger(condition=weights['dape']).tags(RED[None])
