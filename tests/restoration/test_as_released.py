"""OSEDiff's files: configs and `rass-mm restore`, compared with each other and with the released procedure."""

import numpy as np
import pytest
import torch
from checkpoint_layouts import drawer, restorer_file
from commands import python
from PIL import Image

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_loading import load_unet, load_vae
from rass_mm.diffusion.known_bases import LAYOUTS, SD_VAE, build_models, write_configs
from rass_mm.diffusion.one_step import cumulated_alphas
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.diffusion.text import TextEncoder
from rass_mm.errors import ConfigError
from rass_mm.published.convert import convert
from rass_mm_cli.main import main

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

INPUTS = {'square': ((128, 128), 4), 'odd': ((37, 50), 2), 'large': ((194, 200), 4)}
"""Image name -> height, width and upscale factor of its clean partner."""
ROOTS = {'square': 'small', 'odd': 'small', 'large': 'large'}


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    """Random base with Stable Diffusion's stride of 8, narrow and with attention at coarse sizes only for speed."""
    folder, tiny = tmp_path_factory.mktemp('bases') / 'stride8', LAYOUTS['scenes-tiny']
    narrow = {'norm_num_groups': 4, 'layers_per_block': 1}
    unet = {**tiny['unet'], **narrow, 'in_channels': 4, 'out_channels': 4, 'block_out_channels': [16, 16, 32, 32]}
    for side in ('down', 'up'):
        blocks = [f'{kind}{side.title()}Block2D' for kind in ('', 'CrossAttn', 'CrossAttn', '')]
        unet[f'{side}_block_types'] = blocks
    vae = {**SD_VAE, **narrow, 'block_out_channels': [8, 8, 16, 16], 'mid_block_add_attention': False}
    layout = write_configs(folder, {**tiny, 'unet': unet, 'vae': vae}, 'RANDOM')
    torch.manual_seed(0)
    for part, model in build_models(layout).items():
        model.save_pretrained(folder / part)
    return folder


@pytest.fixture(scope='module')
def files(base, tmp_path_factory):
    """Converted OSEDiff of narrow shapes, and pairs of smooth, photo-like images."""
    models, folder = read_base(base), tmp_path_factory.mktemp('released')
    torch.save(restorer_file(load_unet(models), load_vae(models), draw=drawer(4, 0.02)), folder / 'osediff.pkl')
    convert(folder / 'osediff.pkl', folder / 'osediff.safetensors', base, build=None)
    rng = np.random.default_rng(0)
    for name, (size, factor) in INPUTS.items():
        grid = Image.fromarray(rng.integers(256, size=(7, 9, 3), dtype=np.uint8))
        for part, scale in (('lq', 1), ('gt', factor)):
            (folder / ROOTS[name] / part).mkdir(parents=True, exist_ok=True)
            pair = grid.resize((scale * size[1], scale * size[0]), Image.BICUBIC)
            pair.save(folder / ROOTS[name] / part / f'{name}.png')
    return folder


def levels(path):
    return np.asarray(Image.open(path).convert('RGB')).astype(int)


def restored(files, base, source, out, *options):
    image = files / ROOTS[source] / 'lq' / f'{source}.png'
    given = ['restore', image, out, '--adapter', files / 'osediff.safetensors', '--base', base]
    status = main([*map(str, given), '--color-fix', 'adain', '--device', 'cpu', *options])
    assert status == 0
    return levels(out)


def test_the_config_and_the_command_give_the_same_pictures(files, base, tmp_path):
    common = ['scr/osediff_sd21_pairs_untagged.py', '--work-dir', str(tmp_path / 'work')]
    changes = [
        *('--cfg-options', f'model.base={base}', f'model.start={files / "osediff.safetensors"}'),
        *('model.expect.cross_attention_dim=64', 'model.expect.sample_size=32', 'test_evaluator.scores=[PSNR]'),
    ]
    windows = ['model.test_cfg.scheme=windows', 'model.test_cfg.window=256', 'model.test_cfg.overlap=64']
    tests = [
        [*common, '--out', str(tmp_path), *changes, f'test_dataloader.dataset.data_root={files / root}', *more]
        for root, more in (('small', windows), ('large', ()))
    ]
    script = f'from rass_mm_cli.main import run_command\nfor a in {tests}: assert run_command("test", a) == 0'
    done = python('-c', script)
    assert done.returncode == 0, done.stderr[-3000:]
    window = ['--window', '256', '--overlap', '64']
    for name, options in (('square', window), ('odd', window), ('large', ['--scheme', 'osediff'])):
        ours = restored(files, base, name, tmp_path / 'ours.png', '--upscale', str(INPUTS[name][1]), *options)
        assert np.abs(ours - levels(tmp_path / f'{name}.png')).max() <= 1, name


@torch.no_grad()
def released(files, base, name, factor):
    """Computes the released procedure in grey levels: three resizes, one call per latent tile, adain.

    Returns the result without rounding, and the result truncated before and after adain as in the released files.
    """
    image = Image.open(files / ROOTS[name] / 'lq' / f'{name}.png')
    short = min(image.size)
    if short < 512 // factor:
        image = image.resize([int(512 // factor / short * side) for side in image.size])
    image = image.resize([factor * side for side in image.size])
    image = image.resize([side // 8 * 8 for side in image.size], Image.LANCZOS)
    source = np.asarray(image) / 255
    model = load_restorer(files / 'osediff.safetensors', base).model
    context = TextEncoder(model.base).encode_texts([''])[0]
    pixels = torch.from_numpy(source).permute(2, 0, 1)[None].float() * 2 - 1
    latent = model.autoencoder.vae.encode(pixels).latent_dist.mode() * 0.18215
    noise = tiled(latent, lambda part: model.unet(part, 999, encoder_hidden_states=context).sample)
    alpha = cumulated_alphas(model.base.configs['scheduler'])[999]
    latent = (latent - (1 - alpha).sqrt() * noise) / alpha.sqrt()
    output = model.autoencoder.vae.decode(latent / 0.18215).sample[0].clamp(-1, 1) / 2 + 0.5
    output = output.permute(1, 2, 0).double().numpy()
    return normalised(output, source), np.floor(normalised(np.floor(output * 255) / 255, source))


def normalised(output, source):
    means = [part.mean((0, 1)) for part in (output, source)]
    deviations = [np.sqrt(part.var((0, 1), ddof=1) + 1e-5) for part in (output, source)]
    return ((output - means[0]) / deviations[0] * deviations[1] + means[1]).clip(0, 1) * 255


def tiled(latent, predict):
    """Runs tiles of 96 in steps of 64, the last ones at the border, with Gaussian weights of variance 0.01."""
    height, width = latent.shape[-2:]
    if height * width <= 96**2:
        return predict(latent)
    x, y = (torch.arange(96) - 47.5) / 96, (torch.arange(96) - 48) / 96
    weight = torch.exp(-(y[:, None] ** 2 + x**2) / 0.02).double()
    total, seen = torch.zeros(latent.shape, dtype=torch.float64), torch.zeros(height, width, dtype=torch.float64)
    for top in sorted({*range(0, height - 96, 64), height - 96}):
        for left in sorted({*range(0, width - 96, 64), width - 96}):
            place = (..., slice(top, top + 96), slice(left, left + 96))
            total[place] += predict(latent[place]) * weight
            seen[place] += weight
    return (total / seen).float()


@pytest.mark.parametrize(('name', 'size'), [('odd', (512, 688)), ('large', (776, 800))])
def test_osediffs_scheme_is_the_released_procedure(files, base, tmp_path, name, size):
    expected, file = released(files, base, name, 4)
    ours = restored(files, base, name, tmp_path / 'ours.png', '--upscale', '4', '--scheme', 'osediff')
    assert ours.shape == expected.shape == (*size, 3)
    print('largest difference:', np.abs(ours - expected).max(), 'to the file:', np.abs(ours - file).max())
    assert np.abs(ours - expected).max() < 0.6  # ours is rounded
    assert (ours - file).mean() == pytest.approx(0.5, abs=0.1)


def test_unknown_schemes_are_refused(tiny_base):
    from mmagic.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import rass_mm.restoration  # noqa: F401  (registers)

    init_default_scope('mmseg')
    config = Config.fromfile(str(rass_mm.config_path('scr/scr_scenes_tiny.py'))).model
    config.update({'base': str(tiny_base), 'losses': None, 'test_cfg': {'scheme': 'magic'}})
    with pytest.raises(ConfigError, match="test_cfg.scheme is 'magic'. Set it to one of windows, osediff"):
        MODELS.build(config)
