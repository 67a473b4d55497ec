"""Frozen restorer with weights from an adapter file, without a checkpoint, with published settings."""

import json

import cv2
import numpy as np
import pytest
import torch
from checkpoint_layouts import drawer, restorer_file
from commands import warm
from PIL import Image
from torch import nn

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.color import fix_colors
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.errors import AdapterError, ConfigError
from rass_mm.inference.restore import RestoreOptions, restore_image
from rass_mm.metrics.quality import psnr
from rass_mm.published.convert import convert

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')


@pytest.fixture(scope='module')
def osediff(tiny_base, tmp_path_factory):
    """Converted OSEDiff of tiny shapes."""
    base, folder = read_base(tiny_base), tmp_path_factory.mktemp('osediff')
    torch.save(restorer_file(load_unet(base), load_vae(base), draw=drawer(4, 0.02)), folder / 'osediff.pkl')
    convert(folder / 'osediff.pkl', folder / 'osediff.safetensors', tiny_base, build=None)
    return folder / 'osediff.safetensors'


@pytest.fixture
def model(tiny_base, osediff):
    """Function (**options) that returns the frozen restorer."""
    from mmagic.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import rass_mm.restoration  # noqa: F401  (registers)

    init_default_scope('mmseg')

    def make(**options):
        config = Config.fromfile(str(rass_mm.config_path('scr/scr_scenes_tiny.py'))).model
        published = {'form': 'x0', 'timestep': 999, 'prompt': {'type': 'EmptyPrompt'}, 'trainable': False}
        config.update({'base': str(tiny_base), 'start': str(osediff), 'losses': None, **published, **options})
        return MODELS.build(config).eval()

    return make


@torch.no_grad()
def test_it_restores_as_the_adapter_file_does(model, osediff, tiny_base):
    ours = model(test_cfg={})
    images = torch.rand(2, 3, 64, 96) * 2 - 1
    restorer = load_restorer(osediff, tiny_base)
    for image, expected in zip(images, restorer(images), strict=True):
        torch.testing.assert_close(ours.restore(image).clamp(-1, 1), expected, atol=1e-5, rtol=1e-5)
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert set(ours.state_dict()) == {'_extra_state'}
    assert ours.provenance['merged_adapters'][0]['name'] == 'scr'
    with pytest.raises(ConfigError, match='Set model.trainable=True'):
        ours.trained_parameters()


def test_training_from_a_file_with_a_vae_part_is_refused(model):
    with pytest.raises(AdapterError, match='adapts the VAE'):
        model(trainable=True)


@torch.no_grad()
@pytest.mark.parametrize('method', ['adain', 'wavelet'])
def test_colour_fix_is_that_of_restored_files(model, method):
    image = torch.rand(3, 64, 64) * 0.5 - 0.9
    plain = model(test_cfg={}).restore(image).clamp(-1, 1)  # as in image files
    fixed = model(test_cfg={'color_fix': method}).restore(image)
    ours, source = ((part.permute(1, 2, 0).numpy() / 2 + 0.5).copy() for part in (plain, image))
    expected = fix_colors(ours, source, method)
    np.testing.assert_allclose(fixed.permute(1, 2, 0).numpy() / 2 + 0.5, expected, atol=1e-4)
    if method == 'adain':
        torch.testing.assert_close(fixed.mean((1, 2)), image.mean((1, 2)), atol=1e-4, rtol=1e-4)


class Tagger(nn.Module):
    """Tagger that returns 'sky' for every image and records its inputs."""

    def __init__(self, classes=()):
        super().__init__()
        self.seen = []

    def tags(self, images, data_samples=None):
        self.seen.append((tuple(images.shape), data_samples))
        return [['sky', 'grass']] * len(images)


@torch.no_grad()
def test_windows_share_the_tags_of_the_whole_image(model):
    tagger = Tagger()
    ours = model(
        test_prompt={'type': 'TagPrompt', 'tagger': tagger, 'suffix': ', ,'},
        test_cfg={'window': 64, 'overlap': 32, 'window_batch': 2},
    )
    restored = ours.restore(torch.rand(3, 100, 130) * 2 - 1)
    assert restored.shape == (3, 100, 130)
    assert [shape for shape, _ in tagger.seen] == [(1, 3, 100, 130)]
    assert ours.test_prompt_type == 'EmptyPrompt'  # prompt of a saved adapter, which cannot include a tagger


def test_tags_from_labels_are_refused_at_test(model):
    with pytest.raises(ConfigError, match='tags from labels'):
        model(test_prompt={'type': 'TagPrompt', 'tagger': {'type': 'GroundTruthTagger'}})


def test_published_restorer_is_tested_without_a_checkpoint(osediff, tiny_base, tmp_path):
    rng = np.random.default_rng(0)
    for folder, side in (('lq', 32), ('gt', 128)):
        (tmp_path / 'pairs' / folder).mkdir(parents=True)
        for name in 'ab':
            cv2.imwrite(str(tmp_path / 'pairs' / folder / f'{name}.png'), rng.integers(256, size=(side, side, 3)))
    done = warm(
        *('tools/test.py', 'scr/osediff_sd21_pairs_untagged.py', '--work-dir', tmp_path / 'work', '--cfg-options'),
        *(f'model.base={tiny_base}', f'model.start={osediff}', 'model.expect.cross_attention_dim=64'),
        *('model.expect.sample_size=32', f'test_dataloader.dataset.data_root={tmp_path / "pairs"}'),
        *('model.test_cfg.scheme=windows', 'model.test_cfg.window=96', 'model.test_cfg.overlap=32'),
        'test_evaluator.scores=[PSNR,SSIM]',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    record = json.loads((tmp_path / 'work' / 'metrics.json').read_text())
    assert record['checkpoint'] is None
    restorer, expected = load_restorer(osediff, tiny_base), []
    for name in 'ab':
        small, clean = (cv2.imread(str(tmp_path / 'pairs' / part / f'{name}.png')) for part in ('lq', 'gt'))
        large = Image.fromarray(small[..., ::-1]).resize((128, 128), Image.BICUBIC)  # enlargement of OSEDiff
        large = np.asarray(large, np.float32) / 255
        options = RestoreOptions(window=96, overlap=32, color_fix='adain')
        restored = restore_image(large, restorer, options, restorer.size_multiple)
        expected.append(psnr(np.rint(restored.clip(0, 1) * 255), clean[..., ::-1].astype(np.float64)))
    assert record['metrics']['PSNR'] == pytest.approx(np.mean(expected), abs=1e-3)
