"""`rass-mm restore` with a fake restorer."""

import types

import numpy as np
import pytest
import torch
from PIL import Image

from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.one_step_restorer import OneStepRestorer
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.files.hashing import content_hash
from rass_mm_cli.main import main


class Restorer(torch.nn.Module):
    size_multiple = 32

    def __init__(self, stop=False):
        super().__init__()
        self.stop = stop

    def forward(self, images):
        if self.stop:
            raise KeyboardInterrupt
        return -images


@pytest.fixture
def loads(monkeypatch):
    """Records calls of `load_restorer`; a true value in `stop` makes its restorers raise KeyboardInterrupt."""
    calls = types.SimpleNamespace(given=[], stop=False)

    def load_restorer(**given):
        calls.given.append(given)
        return Restorer(calls.stop)

    monkeypatch.setattr('rass_mm.cli.restore.load_restorer', load_restorer)
    return calls


@pytest.fixture
def files(tmp_path):
    """An adapter, a base and an image folder."""
    (tmp_path / 'base' / 'unet').mkdir(parents=True)
    (tmp_path / 'base' / 'unet' / 'config.json').write_text('{}')
    (tmp_path / 'scr.safetensors').write_bytes(b'weights')
    (tmp_path / 'in').mkdir()
    array = np.random.default_rng(0).integers(0, 256, (40, 70, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / 'in' / 'image.png')
    return tmp_path


def restore(files, *options, source='in', out='out'):
    adapter, base = files / 'scr.safetensors', files / 'base'
    arguments = [files / source, files / out, '--adapter', adapter, '--base', base, '--device', 'cpu', *options]
    return main(['restore', *map(str, arguments)])


def test_a_folder_is_restored(files, loads, capsys):
    assert restore(files, '--upscale', '2', '--window', '64', '--overlap', '32', '--batch', '3') == 0
    before, after = (np.asarray(Image.open(files / folder / 'image.png')).astype(int) for folder in ('in', 'out'))
    assert after.shape == (80, 140, 3) and np.abs(after.mean() - (255 - before.mean())) < 2
    given = loads.given[0]
    assert given['adapter'] == files / 'scr.safetensors' and given['base'] == files / 'base'
    assert (given['device'], given['autoencoder']) == ('cpu', None)
    assert '1 of 1 images restored' in capsys.readouterr().out
    assert restore(files, '--upscale', '2', '--window', '64', '--overlap', '32') == 0
    assert len(loads.given) == 1  # nothing to do, so no model is loaded


def test_files_are_enlarged_by_pillow(files, loads):
    array = np.random.default_rng(1).integers(0, 256, (23, 31, 3), np.uint8)
    Image.fromarray(array).save(files / 'in' / 'a.png')
    deep = (30000 + np.arange(40 * 50).reshape(40, 50) % 97).astype(np.uint16)  # less than one 8-bit level
    Image.fromarray(deep).save(files / 'in' / 'b.png')
    assert restore(files, '--upscale', '3', '--window', '64', '--overlap', '32') == 0
    larger = np.asarray(Image.fromarray(array).resize((93, 69), Image.BICUBIC)).astype(int)
    ours = np.asarray(Image.open(files / 'out' / 'a.png')).astype(int)
    assert np.abs(ours - (255 - larger)).max() <= 1
    larger = np.asarray(Image.fromarray(deep.astype(np.float32)).resize((150, 120), Image.BICUBIC))
    ours = np.asarray(Image.open(files / 'out' / 'b.png')).astype(int)
    assert np.abs(ours - (65535 - larger)).max() <= 1


def test_osediffs_scheme_loads_another_restorer_and_is_another_setting(files, loads, capsys, monkeypatch):
    monkeypatch.setattr(Restorer, 'size_multiple', 8)
    assert restore(files, '--upscale', '4', '--scheme', 'osediff') == 0
    assert loads.given[0]['latent_tiles'] is True
    assert Image.open(files / 'out' / 'image.png').size == (896, 512)
    assert restore(files, '--upscale', '4') == 1 and 'other settings' in capsys.readouterr().err


def test_a_folder_with_the_earlier_enlargement_is_not_continued(files, loads, capsys):
    assert restore(files) == 0
    manifest = files / 'out' / 'manifest.jsonl'
    manifest.write_text(manifest.read_text().replace('restored images, 2', 'restored images, 1'))
    assert restore(files) == 1 and 'other settings' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (['--color-fix', 'wavelet'], 'other settings'),
        (['--dtype', 'float16'], 'other settings'),
        (['--deterministic'], 'other settings'),
        (['--deterministic', '--dtype', 'bfloat16'], 'Remove dtype'),
        (['--device', 'nowhere'], 'nowhere'),
        (['--device', 'cuda:99'], 'cuda:99'),
        (['--overlap', '512'], 'overlap'),
        (['--autoencoder', '/absent'], '/absent does not exist'),
        (['--base', '/absent'], '/absent/unet'),
    ],
)
def test_invalid_options_are_reported_before_the_model_is_loaded(files, loads, capsys, options, said):
    assert restore(files) == 0
    loads.given.clear()
    assert restore(files, *options) == 1 and not loads.given
    assert said in capsys.readouterr().err


def test_an_upscale_factor_out_of_range_is_refused(files, loads, capsys):
    with pytest.raises(SystemExit) as ended:
        restore(files, '--upscale', '0')
    assert ended.value.code == 2 and not loads.given
    assert "--upscale: '0' is not a number from 1 to" in capsys.readouterr().err


@pytest.mark.parametrize('sheet', ['in/image.png', 'out/image.png', 'in/../in/image.png'])
def test_the_contact_sheet_overwrites_no_image(files, loads, capsys, sheet):
    before = (files / 'in' / 'image.png').read_bytes()
    assert restore(files, '--sheet', str(files / sheet)) == 1 and not loads.given
    assert 'Choose another path with --sheet' in ' '.join(capsys.readouterr().err.split())
    assert (files / 'in' / 'image.png').read_bytes() == before and not (files / 'out' / 'image.png').exists()
    assert restore(files, '--sheet', str(files / 'out' / 'sheet.png')) == 0 and (files / 'out' / 'sheet.png').exists()


def test_an_output_below_a_file_is_refused(files, loads, capsys):
    assert restore(files, out='scr.safetensors/out') == 1 and not loads.given
    assert 'Cannot write' in capsys.readouterr().err


def test_damaged_images_give_a_failure(files, loads, capsys):
    (files / 'in' / 'broken.png').write_bytes(b'\x89PNG')
    assert restore(files) == 1
    assert (files / 'out' / 'image.png').exists() and 'broken.png' in capsys.readouterr().err


def test_an_interruption_says_how_to_resume(files, loads, capsys):
    loads.stop = True
    assert restore(files) == 130
    assert 'same command again' in ' '.join(capsys.readouterr().err.split())
    loads.stop = False
    assert restore(files) == 0


def test_the_hash_follows_content_not_names(files):
    same = files / 'renamed.safetensors'
    same.write_bytes((files / 'scr.safetensors').read_bytes())
    assert content_hash(same) == content_hash(files / 'scr.safetensors')
    same.write_bytes(b'weighty')
    assert content_hash(same) != content_hash(files / 'scr.safetensors')
    before = content_hash(files / 'base')
    (files / 'base' / 'unet' / 'config.json').write_text('{ }')
    assert content_hash(files / 'base') != before and content_hash(None) is None


def test_the_real_restorer_gives_the_result_of_the_whole_mirrored_image(tiny_base, files):
    base, adapter = read_base(tiny_base), files / 'scr.safetensors'
    OneStepRestorer(base).save(adapter, base.identity, 'ClassTokens', ['tree', 'car'])
    options = ['--window', '128', '--overlap', '32', '--dtype', 'float32']
    assert restore(files, *options, '--base', str(tiny_base)) == 0
    restorer = load_restorer(adapter, tiny_base)
    image = np.asarray(Image.open(files / 'in' / 'image.png')) / np.float32(127.5) - 1
    missing = [(0, -side % restorer.size_multiple) for side in image.shape[:2]]
    whole = torch.from_numpy(np.pad(image, [*missing, (0, 0)], 'reflect')).permute(2, 0, 1)[None]
    expected = (restorer(whole)[0, :, :40, :70].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(np.asarray(Image.open(files / 'out' / 'image.png')) - expected).max() < 0.6
