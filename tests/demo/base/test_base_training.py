"""The small base: trained in seconds here, an ordinary Stable Diffusion folder as a result."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from commands import python

from rass_mm.datasets.scenes import SCENE_CLASSES
from rass_mm.demo.base import training as base_training
from rass_mm.demo.base.images import BaseImages, cut, random_crops
from rass_mm.demo.base.noise_loss import NoiseLoss
from rass_mm.demo.base.recipe import BaseRecipe, Start
from rass_mm.demo.base.training import make_base
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.base_weights import weights_hash
from rass_mm.diffusion.known_bases import LAYOUTS, build_models, write_configs
from rass_mm.diffusion.text import TextEncoder, load_tokenizer
from rass_mm.errors import BaseFolderError

SMALL = {'scenes': 6, 'image_size': 32, 'vae_steps': 4, 'vae_batch': 2, 'vae_crop': 32, 'unet_batch': 2, 'unet_crop': 8}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('RASS_MM_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def test_result_is_an_ordinary_base_folder(cache, tmp_path):
    losses = make_base(tmp_path / 'base', BaseRecipe(**SMALL, unet_steps=3))
    assert set(losses) == {'vae_loss', 'vae_psnr', 'unet_loss'} and all(value == value for value in losses.values())
    base = read_base(tmp_path / 'base', {'cross_attention_dim': 64})
    latent = load_vae(base).encode(torch.zeros(1, 3, 32, 32)).latent_dist.mode() * base.scaling_factor
    context = TextEncoder(base).encode_texts(['a photo of a sky, road'])[0]
    channels = base.configs['vae']['latent_channels']
    assert load_unet(base)(latent, 5, encoder_hidden_states=context).sample.shape == (1, channels, 8, 8)
    assert not list((tmp_path / 'base').rglob('*.pt'))
    terms = json.loads((tmp_path / 'base' / 'training.json').read_text())['terms']
    assert [(term['name'], term['licence']) for term in terms] == [('scenes drawn by rass_mm', 'Apache-2.0')]


def test_second_request_comes_from_the_cache(cache, tmp_path, monkeypatch):
    recipe = BaseRecipe(**SMALL, unet_steps=2)
    first = make_base(tmp_path / 'one', recipe)
    monkeypatch.setattr(base_training, '_BaseTraining', None)
    assert make_base(tmp_path / 'two', recipe) == first == make_base(tmp_path / 'two', recipe)
    identities = [{**read_base(tmp_path / name).identity, 'name': ''} for name in ('one', 'two')]
    assert identities[0] == identities[1]


def test_stopped_training_goes_on_as_if_it_had_not(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(base_training, 'STATE_INTERVAL', 4)
    recipe = BaseRecipe(**SMALL, unet_steps=6)
    make_base(tmp_path / 'whole', recipe)
    monkeypatch.setenv('RASS_MM_CACHE', str(tmp_path / 'other'))
    honest = NoiseLoss.__call__
    calls = []

    def stopping(self, generator):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return honest(self, generator)

    monkeypatch.setattr(NoiseLoss, '__call__', stopping)
    with pytest.raises(KeyboardInterrupt):
        make_base(tmp_path / 'cut', recipe)
    assert not (tmp_path / 'cut').exists()
    make_base(tmp_path / 'cut', recipe)
    assert len(calls) == 6 + 2  # two steps after the state at 4
    whole, cut = (load_unet(read_base(tmp_path / name)).state_dict() for name in ('whole', 'cut'))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    records = [json.loads((tmp_path / name / 'training.json').read_text())['losses'] for name in ('whole', 'cut')]
    assert records[0] == records[1]


def test_folder_with_something_else_is_refused(cache, tmp_path):
    (tmp_path / 'base').mkdir()
    (tmp_path / 'base' / 'note.txt').write_text('mine')
    with pytest.raises(BaseFolderError, match='not empty'):
        make_base(tmp_path / 'base', BaseRecipe(**SMALL, unet_steps=2))
    assert (tmp_path / 'base' / 'note.txt').read_text() == 'mine'


def test_two_commands_with_the_same_target_train_once(cache, tmp_path, monkeypatch):
    trained = []
    honest = base_training._BaseTraining.run
    monkeypatch.setattr(base_training._BaseTraining, 'run', lambda self: (trained.append(self.key), honest(self)))
    with ThreadPoolExecutor(2) as pool:
        recipe = BaseRecipe(**SMALL, unet_steps=3)
        first, second = pool.map(lambda _: make_base(tmp_path / 'base', recipe), range(2))
    assert first == second and trained == [recipe.key()]
    assert read_base(tmp_path / 'base') and [path.name for path in tmp_path.glob('*base*')] == ['base']


def test_a_target_that_another_command_filled_in_the_meantime_is_refused(cache, tmp_path, monkeypatch):
    honest = base_training._BaseTraining.run

    def run(self):
        honest(self)
        (tmp_path / 'base').mkdir()
        (tmp_path / 'base' / 'training.json').write_text('{"key": "other"}')

    monkeypatch.setattr(base_training._BaseTraining, 'run', run)
    with pytest.raises(BaseFolderError, match='filled by another command'):
        make_base(tmp_path / 'base', BaseRecipe(**SMALL, unet_steps=2))
    assert [path.name for path in (tmp_path / 'base').iterdir()] == ['training.json']
    assert [path.name for path in tmp_path.glob('*base*')] == ['base']


def test_captions_name_what_is_in_their_crop_and_nothing_else(tiny_base):
    """Two halves of different classes, a sliver below 1 % and an id without a name; latents at stride 4."""
    label = torch.zeros(1, 64, 64, dtype=torch.uint8)
    label[:, :, 32:], label[:, :3, :3], label[:, 40:, 40:] = 3, 5, 255
    data = BaseImages(torch.zeros(1, 3, 64, 64).byte(), label, tuple(SCENE_CLASSES))
    tokenizer = load_tokenizer(read_base(tiny_base))

    def caption(crop, place, seed=0, empty=0.0):
        recipe = BaseRecipe(unet_crop=crop, empty_prompts=empty)
        loss = NoiseLoss([None, None], torch.zeros(1, 8, 16, 16), data, tokenizer, recipe)
        ids = loss._caption(place, torch.Generator().manual_seed(seed))
        assert len(ids) == 77
        return tokenizer.decode(ids, skip_special_tokens=True)

    first, second = SCENE_CLASSES[0], SCENE_CLASSES[3]
    assert caption(8, (0, 0, 0, False)).split() == f'a photo of a {first}'.split()
    assert caption(8, (0, 4, 8, True)).split() == f'a photo of a {second}'.split()
    orders = {caption(16, (0, 0, 0, False), seed) for seed in range(8)}
    assert len(orders) == 2 and all(first in text and second in text for text in orders)
    assert caption(16, (0, 0, 0, False), empty=1.0) == ''


def test_crops_of_latents_and_labels_show_the_same_place():
    labels = torch.arange(2 * 32 * 48).view(2, 32, 48)
    latents = labels[:, ::4, ::4]
    crops = random_crops(20, 2, latents.shape[-2:], 4, torch.Generator().manual_seed(0))
    assert {crop[3] for crop in crops} == {True, False} and {crop[0] for crop in crops} == {0, 1}
    for image, top, left, mirrored in crops:
        small = cut(latents, [(image, top, left, mirrored)], 4)[0]
        large = cut(labels, [(image, 4 * top, 4 * left, mirrored)], 16)[0]
        assert torch.equal(large[::4, 3::4] if mirrored else large[::4, ::4], small)


def test_the_key_follows_recipe_and_images():
    class Source:
        key = 'abc'

    keys = {BaseRecipe().key(), BaseRecipe(seed=1).key(), BaseRecipe(unet_steps=9).key(), BaseRecipe().key(Source())}
    assert len(keys) == 4 and BaseRecipe().key() in keys and BaseRecipe().key(Source()) in keys


def started(folder, fresh_unet=False):
    return Start(read_base(folder), fresh_unet)


def test_training_begins_at_another_base(cache, tmp_path):
    make_base(tmp_path / 'first', BaseRecipe(**SMALL, unet_steps=3))
    still = BaseRecipe(**{**SMALL, 'vae_steps': 0}, unet_steps=0)
    losses = make_base(tmp_path / 'same', still, start=started(tmp_path / 'first'))
    assert set(losses) == {'vae_psnr'}
    make_base(tmp_path / 'on', BaseRecipe(**{**SMALL, 'vae_steps': 0}, unet_steps=2), start=started(tmp_path / 'first'))
    first, same, further = (read_base(tmp_path / name) for name in ('first', 'same', 'on'))
    assert first.scaling_factor == same.scaling_factor == further.scaling_factor
    assert first.identity['weights'] == same.identity['weights'] != further.identity['weights']
    assert weights_hash(first.folder, ('vae',)) == weights_hash(further.folder, ('vae',))
    assert json.loads((tmp_path / 'on' / 'training.json').read_text())['start']['fresh_unet'] is False


def test_fresh_unet_keeps_the_autoencoder_only(cache, tmp_path):
    make_base(tmp_path / 'first', BaseRecipe(**SMALL, unet_steps=3))
    still = BaseRecipe(**{**SMALL, 'vae_steps': 0}, unet_steps=0)
    make_base(tmp_path / 'fresh', still, start=started(tmp_path / 'first', fresh_unet=True))
    make_base(
        tmp_path / 'other',
        BaseRecipe(**{**SMALL, 'vae_steps': 0}, unet_steps=0, seed=1),
        start=started(tmp_path / 'first', fresh_unet=True),
    )
    parts = ('vae', 'unet', 'text_encoder')
    hashes = {name: [weights_hash(tmp_path / name, (part,)) for part in parts] for name in ('first', 'fresh', 'other')}
    assert hashes['fresh'][0] == hashes['first'][0] == hashes['other'][0]
    assert all(len({hashes[name][part] for name in hashes}) == 3 for part in (1, 2))


def test_base_of_another_layout_cannot_be_started_from(cache, tmp_path):
    write_configs(
        tmp_path / 'wide',
        {**LAYOUTS['scenes-tiny'], 'vae': {**LAYOUTS['scenes-tiny']['vae'], 'block_out_channels': [8, 16, 32]}},
        'wide',
    )
    layout = {
        part: json.loads((tmp_path / 'wide' / part / 'config.json').read_text())
        for part in ('unet', 'vae', 'text_encoder')
    }
    for part, model in build_models(layout).items():
        model.save_pretrained(tmp_path / 'wide' / part)
    with pytest.raises(BaseFolderError, match='wide/vae cannot initialize the training'):
        make_base(tmp_path / 'base', BaseRecipe(**SMALL, unet_steps=2), start=started(tmp_path / 'wide'))
    assert not (tmp_path / 'base').exists()


def test_fresh_unet_alone_is_refused(tmp_path):
    done = python('-m', 'rass_mm', 'make-base', tmp_path / 'base', '--fresh-unet')
    assert done.returncode == 1 and 'Add --start FOLDER' in done.stderr


def test_min_snr_weights_against_the_formula():
    """min(SNR, 5) / SNR in float64, SNR = abar / (1 - abar) of the scaled-linear schedule."""
    recipe = BaseRecipe(snr_gamma=5.0)
    data = BaseImages(torch.zeros(1, 3, 32, 32), torch.zeros(1, 32, 32), ('sky',))
    loss = NoiseLoss([None, None], torch.zeros(1, 8, 8, 8), data, None, recipe)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas).cumprod(0)
    times = torch.tensor([0, 1, 100, 150, 400, 999])
    expected = [min(k / (1 - k), 5.0) / (k / (1 - k)) for k in kept[times].tolist()]
    assert loss._weights(times).tolist() == pytest.approx(expected, rel=1e-4)
    assert expected[0] < 0.01 and expected[-1] == 1


def test_rates_and_weights_are_part_of_the_key_and_absent_ones_are_not():
    assert BaseRecipe(snr_gamma=5.0).key() != BaseRecipe().key() != BaseRecipe(vae_rate=1e-3).key()
    assert BaseRecipe(snr_gamma=None).key() == BaseRecipe().key()
