"""Autoencoders of a restorer: the base's VAE, and TAESD at one end or both."""

import copy

import cv2
import numpy as np
import pytest
import torch
from commands import SHARED
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

from rass_mm.diffusion.autoencoder import TAESD_FILES, TinyAutoencoder, build_autoencoder, load_tiny
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.known_bases import LAYOUTS, write_random_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.errors import BaseFolderError, ConfigError
from rass_mm.metrics.quality import psnr

TAESD, REAL = SHARED / 'weights' / 'taesd', SHARED / 'data' / 'drealsr20' / 'gt'
needs_taesd = pytest.mark.skipif(
    not (TAESD.is_dir() and REAL.is_dir()), reason='TAESD and DRealSR are not available (../shared/{weights,data})'
)
IMAGES = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1


def write_base(folder, channels, widths):
    """Returns a tiny base with the given number of latent channels and VAE widths."""
    layout = copy.deepcopy(LAYOUTS['scenes-tiny'])
    layout['unet'] |= {'in_channels': channels, 'out_channels': channels}
    layout['vae'] |= {
        'latent_channels': channels,
        'block_out_channels': widths,
        'down_block_types': ['DownEncoderBlock2D'] * len(widths),
        'up_block_types': ['UpDecoderBlock2D'] * len(widths),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LAYOUTS, 'other', layout)
        write_random_base(folder, 'other', half=False)
    return read_base(folder)


@pytest.fixture(scope='module')
def sd_like(tmp_path_factory):
    """Provides a base with latents of 4 channels at stride 8, as in Stable Diffusion."""
    return write_base(tmp_path_factory.mktemp('bases') / 'f8', 4, [8, 8, 16, 16])


@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return AutoencoderTiny().eval()


@pytest.fixture(scope='module')
def files(tiny, tmp_path_factory):
    """Provides random weights in TAESD's two files, with the published names."""
    folder = tmp_path_factory.mktemp('weights') / 'taesd'
    folder.mkdir()
    for part, shift in (('encoder', 0), ('decoder', 1)):
        state = {}
        for key, value in getattr(tiny, part).layers.state_dict().items():
            number, rest = key.split('.', 1)
            state[f'{part}.{int(number) + shift}.{rest}'] = value
        save_file(state, folder / TAESD_FILES[part])
    return folder


@pytest.fixture
def broken(files, tmp_path):
    for file in files.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_the_bases_vae_encodes_to_scaled_modes_and_decodes_them(tiny_base):
    base = read_base(tiny_base)
    autoencoder, vae = build_autoencoder(base), AutoencoderKL.from_pretrained(tiny_base / 'vae').eval()
    with torch.no_grad():
        latent = vae.encode(IMAGES).latent_dist.mean * 0.18215
        torch.testing.assert_close(autoencoder.encode(IMAGES), latent)
        torch.testing.assert_close(autoencoder.decode(latent), vae.decode(latent / 0.18215).sample)
    assert latent.shape == (2, 8, 16, 32) and autoencoder.stride == 4


@pytest.mark.parametrize('ends', [None, 'decoder', 'both'])
def test_encode_has_no_graph_decode_has_gradients_and_nothing_is_trained(sd_like, files, ends):
    autoencoder = build_autoencoder(sd_like, **({'tiny': files, 'ends': ends} if ends else {}))
    assert not any(parameter.requires_grad for parameter in autoencoder.parameters())
    assert not autoencoder.training
    latent = autoencoder.encode(IMAGES.clone().requires_grad_())
    assert latent.shape == (2, 4, 8, 16) and not latent.requires_grad and autoencoder.stride == 8
    latent.requires_grad_()
    images = autoencoder.decode(latent)
    images.square().sum().backward()
    assert images.shape == IMAGES.shape and latent.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in autoencoder.parameters())


def test_checkpointing_the_decoder_does_not_change_its_gradients(sd_like):
    gradients = []
    for checkpointing in (False, True):
        latent = torch.ones(1, 4, 4, 4, requires_grad=True)
        build_autoencoder(sd_like, gradient_checkpointing=checkpointing).decode(latent).square().sum().backward()
        gradients.append(latent.grad)
    torch.testing.assert_close(*gradients)


def test_published_files_load_as_the_model_they_came_from(tiny, files):
    loaded = load_tiny(files)
    assert all(torch.equal(value, tiny.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert not any(parameter.requires_grad for parameter in loaded.parameters()) and not loaded.training


def test_a_diffusers_folder_loads_the_same_model(tiny, tmp_path):
    copy.deepcopy(tiny).half().save_pretrained(tmp_path / 'half')
    tiny.save_pretrained(tmp_path / 'full')
    loaded = load_tiny(tmp_path / 'full')
    assert all(torch.equal(value, tiny.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert all(value.dtype == torch.float32 for value in load_tiny(tmp_path / 'half').state_dict().values())


def test_decoder_only_keeps_the_bases_encoder(sd_like, files, tiny):
    autoencoder = TinyAutoencoder(sd_like, files)
    with torch.no_grad():
        latent = AutoencoderKL.from_pretrained(sd_like.folder / 'vae').encode(IMAGES).latent_dist.mean * 0.18215
        torch.testing.assert_close(autoencoder.encode(IMAGES), latent)
        torch.testing.assert_close(autoencoder.decode(latent), tiny.decode(latent).sample)
    assert not [name for name in autoencoder.state_dict() if name.startswith(('tiny.encoder', 'full.decoder'))]


def test_both_ends_need_no_vae(sd_like, files, tiny):
    autoencoder = TinyAutoencoder(sd_like, files, ends='both')
    with torch.no_grad():
        torch.testing.assert_close(autoencoder.encode(IMAGES), tiny.encode(IMAGES).latents)
    assert autoencoder.full is None


@pytest.mark.parametrize('name', TAESD_FILES.values())
def test_a_missing_file_is_named_with_what_is_needed(broken, name):
    (broken / name).unlink()
    with pytest.raises(BaseFolderError) as caught:
        load_tiny(broken)
    assert f'{broken / name} is missing' in str(caught.value) and 'diffusers folder' in str(caught.value)


@pytest.mark.parametrize(
    'fault', ['truncated', 'empty', 'no tensors', 'one tensor missing', 'another shape', 'swapped']
)
def test_a_damaged_file_is_refused(broken, fault):
    file = broken / TAESD_FILES['decoder']
    if fault == 'truncated':
        file.write_bytes(file.read_bytes()[:-100])
    elif fault == 'empty':
        file.write_bytes(b'')
    elif fault == 'no tensors':
        file.write_text('<html>not found</html>')
    elif fault == 'swapped':
        file.write_bytes((broken / TAESD_FILES['encoder']).read_bytes())
    else:
        state = load_file(file)
        key = sorted(state)[0]
        state = {**state, key: state[key][:1]} if fault == 'another shape' else {k: state[k] for k in state if k != key}
        save_file(state, file)
    with pytest.raises(BaseFolderError, match=f'{broken} has no usable TAESD weights'):
        load_tiny(broken)


def test_a_damaged_diffusers_folder_is_refused(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    file = tmp_path / 'diffusion_pytorch_model.safetensors'
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BaseFolderError, match='damaged or incomplete'):
        load_tiny(tmp_path)


def test_a_base_with_other_latents_is_refused(tiny_base, files, tmp_path):
    for ends in ('decoder', 'both'):
        with pytest.raises(ConfigError, match='4 channels at stride 8.*has 8 channels at stride 4'):
            TinyAutoencoder(read_base(tiny_base), files, ends)
    with pytest.raises(ConfigError, match='has 4 channels at stride 4'):
        TinyAutoencoder(write_base(tmp_path / 'f4', 4, [8, 8, 16]), files)


def test_unknown_ends_are_refused(sd_like, files):
    with pytest.raises(ConfigError, match="ends is 'encoder', but it must be 'decoder' or 'both'"):
        TinyAutoencoder(sd_like, files, ends='encoder')


@pytest.mark.parametrize('form', ['residual', 'x0'])
@pytest.mark.parametrize('ends', ['decoder', 'both'])
def test_one_step_restoration_with_taesd(sd_like, files, tiny, ends, form):
    torch.manual_seed(0)
    model = OneStepRestorer(sd_like, form=form, autoencoder={'tiny': files, 'ends': ends}).eval()
    context = torch.randn(2, 4, sd_like.context_width)
    assert model.size_multiple == 64
    with torch.no_grad():
        found = model(IMAGES, context)
        latent = tiny.encode(IMAGES).latents if ends == 'both' else model.autoencoder.encode(IMAGES)
        predicted = model.unet(latent, 1 if form == 'residual' else 999, encoder_hidden_states=context).sample
        alpha = model.alpha_bar
        restored = latent - predicted if form == 'residual' else (latent - (1 - alpha) ** 0.5 * predicted) / alpha**0.5
    scale = restored.abs().max().item()  # the x0 form at t=999 multiplies rounding errors by 15, too
    torch.testing.assert_close(found, tiny.decode(restored).sample, rtol=0, atol=1e-4 * max(1, scale))


@pytest.mark.parametrize('ends', ['decoder', 'both'])
def test_an_adapter_file_restores_with_taesd(sd_like, files, tmp_path, ends):
    torch.manual_seed(0)
    model = OneStepRestorer(sd_like, autoencoder={'tiny': files, 'ends': ends}).eval()
    model.save(tmp_path / 'scr.safetensors', sd_like.identity, 'EmptyPrompt', ['sky'])
    restorer = load_restorer(tmp_path / 'scr.safetensors', sd_like.folder, files, ends)
    with torch.no_grad():
        expected = model(IMAGES, restorer.prompt(IMAGES).context).clamp(-1, 1)
    torch.testing.assert_close(restorer(IMAGES), expected, rtol=0, atol=1e-4)


def round_trip(autoencoder, image):
    """Encodes and decodes an RGB uint8 image with TAESD and returns uint8."""
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].float() / 127.5 - 1
    with torch.no_grad():
        back = autoencoder.decode(autoencoder.encode(pixels))[0]
    return ((back.clamp(-1, 1) + 1) * 127.5).round().byte().numpy().transpose(1, 2, 0)


def read(path):
    return cv2.imread(str(path))[..., ::-1]


@needs_taesd
def test_the_published_weights_reproduce_images(sd_like):
    autoencoder = build_autoencoder(sd_like, TAESD, 'both')
    for path in sorted(REAL.iterdir())[:2]:
        image = read(path)[128:384, 128:384]
        back = round_trip(autoencoder, image)
        value = psnr(back, image)
        print(f'TAESD {path.name}: PSNR-Y {value:.2f} dB')
        assert 29 < value < 43
        assert abs(back.mean((0, 1)) - image.mean((0, 1))).max() < 8  # no colour cast


@needs_taesd
@pytest.mark.slow
def test_round_trip_of_all_real_images(sd_like):
    autoencoder = build_autoencoder(sd_like, TAESD, 'both')
    luma, rgb = [], []
    for path in sorted(REAL.iterdir()):
        image = read(path)
        back = round_trip(autoencoder, image)
        luma.append(psnr(back, image))
        rgb.append(-10 * np.log10(np.mean((back.astype(float) - image) ** 2) / 255**2))
    print(f'TAESD on {len(luma)} images: PSNR-Y {np.mean(luma):.2f} dB, RGB {np.mean(rgb):.2f} dB')
    assert np.mean(luma) == pytest.approx(33.60, abs=0.1) and np.mean(rgb) == pytest.approx(31.10, abs=0.1)
