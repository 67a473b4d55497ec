"""Makes the data and the bases required by the configs with `rass-mm` commands. Finished parts are kept."""

import logging
import os
import random
import subprocess
import sys
from pathlib import Path

import cv2

from experiments.folds import fold, held_out
from experiments.system import CAMVID_FOLDS, FEW, SEEDS, recipe_version
from rass_mm.diffusion.base import SMALL_BASE
from rass_mm.errors import DataError, RassError
from rass_mm.files.atomic import atomic_path, write_text

logger = logging.getLogger(__name__)
DATA, BASES = Path('data/experiments'), Path('bases/experiments')
HALF = (240, 180)
UNET = ['--unet-crop', '16', '--unet-batch', '16', '--snr-gamma', '5', '--unet-steps']
FROM_SCENES = ['--vae-steps', '600', '--vae-rate', '6e-4', *UNET, '3000']
LARGE = ['--scenes', '4096', '--fresh-unet', '--vae-steps', '900', '--vae-rate', '6e-4', *UNET, '10000']
RATES_TRAINING, RATES_HELD_OUT = 'rates-training.txt', 'rates-held-out.txt'
"""Lists of image names in the data folder: the two parts of the training images on which rates are chosen."""


def prepare(setting: str, camvid: Path, with_bases: bool = True) -> None:
    """Makes the data and the bases of one setting.

    Args:
        setting: a name of `SETTINGS`.
        camvid: the full-size CamVid (`img_dir/{train,val}/*.jpg`, `ann_dir/{train,val}/*.png`).
        with_bases: whether to train the bases.

    Raises:
        RassError: a command failed.
    """
    folder = DATA / setting
    if setting in CAMVID_FOLDS:
        halve(camvid, DATA / 'camvid-half')
        link_fold(DATA / 'camvid-half', folder, CAMVID_FOLDS.index(setting))
    elif setting == 'camvid':
        folder = DATA / 'camvid-half'
        halve(camvid, folder)
    elif not (folder / 'scenes.json').is_file():
        train, val = ('2000', '200') if setting == 'scenes' else ('400', '500')
        _command('make-scenes', str(folder), '--train', train, '--val', val)
    if setting == 'scenes2':
        list_scenes(folder)
    for split in ('val',) if setting in ('scenes', 'camvid') else ('val', 'train'):  # rates are tested on 'train'
        degraded = (str(folder / 'img_dir' / split), str(folder / 'img_lq' / split))
        _command('make-lq', *degraded, '--seed', '0', '--recipe-version', str(recipe_version(setting)))
    for name, options in bases(setting).items() if with_bases else ():
        _command('make-base', str(BASES / name), *options)


def list_scenes(folder: Path) -> None:
    """Writes the lists of training scenes: the two parts on which rates are chosen, and small subsets for each seed.

    The subsets of one seed contain each other: the 25 scenes are the first of the 100.
    """
    names = sorted(file.stem for file in (folder / 'img_dir' / 'train').iterdir())
    cut = len(names) * 3 // 4
    _write_list(folder / RATES_TRAINING, names[:cut])
    _write_list(folder / RATES_HELD_OUT, names[cut:])
    for seed in SEEDS:
        drawn = random.Random(seed).sample(names, max(FEW))
        for count in FEW:
            _write_list(folder / f'few{count}-seed{seed}.txt', drawn[:count])


def link_fold(half: Path, folder: Path, number: int) -> None:
    """Makes the folder of a fold of CamVid by time from hard links to the training images of CamVid at half size."""
    names = [file.stem for file in (half / 'img_dir' / 'train').glob('*.png')]
    split = fold(names, number)
    for part, frames in (('train', split.training), ('val', split.validation)):
        for kind in ('img_dir', 'ann_dir'):
            (folder / kind / part).mkdir(parents=True, exist_ok=True)
            for name in frames:
                place = folder / kind / part / f'{name}.png'
                if not place.is_file():
                    os.link(half / kind / 'train' / place.name, place)
    rates = held_out(split.training)
    _write_list(folder / RATES_TRAINING, rates.training)
    _write_list(folder / RATES_HELD_OUT, rates.validation)


def _write_list(file: Path, names: list[str]) -> None:
    write_text(file, ''.join(f'{name}\n' for name in names))


def bases(setting: str) -> dict[str, list[str]]:
    """Returns the `make-base` options by folder name; initial bases are listed before the bases that use them.

    The new settings use the shipped base, whose weights are those of `scenes` in float16.
    """
    if setting == 'scenes2':  # the shipped base and its start with other seeds
        return {'scenes-tiny-b1': ['--seed', '1'], 'scenes-b1': [*_start('scenes-tiny-b1'), *LARGE, '--seed', '1']}
    if setting in CAMVID_FOLDS:
        return {setting: [*_data(setting), '--start', str(SMALL_BASE), *FROM_SCENES]}
    # At the default rate, the scenes' autoencoder does not improve from step 160 to 1500. Continue at a lower rate.
    scenes = {'scenes-tiny': [], 'scenes': [*_start('scenes-tiny'), *LARGE]}
    same = [*_start(setting), '--fresh-unet', '--vae-steps', '0', *UNET]
    if setting == 'scenes':
        return {
            **scenes,
            'scenes-short': ['--scenes', '4096', *same, '300'],
            'scenes-random': ['--scenes', '64', *same, '0'],
        }
    alone = ['--vae-steps', '1200', '--unet-crop', '24', '--unet-batch', '8', '--unet-steps', '5000']
    return {
        **scenes,
        'camvid': [*_data('camvid-half'), *_start('scenes'), *FROM_SCENES],
        'camvid-alone': [*_data('camvid-half'), *alone],
        'camvid-short': [*_data('camvid-half'), *same, '300'],
        'camvid-random': [*_data('camvid-half'), *same, '0'],
    }


def _start(name: str) -> list[str]:
    return ['--start', str(BASES / name)]


def _data(folder: str) -> list[str]:
    """Returns the `make-base` options that select the training images and labels of a CamVid folder."""
    root = f'train_dataloader.dataset.data_root={DATA}/{folder}'
    return [
        *('--data', 'rass/rass_camvid_tiny.py', '--cfg-options'),
        *('train_dataloader.dataset.img_suffix=.png', root),
    ]


def halve(source: Path, target: Path) -> None:
    """Writes CamVid at half size as PNG: averages images over 2x2 pixels and samples labels by nearest neighbour.

    Raises:
        DataError: the source is missing or empty, or an image is damaged.
    """
    for kind, suffix, method in (('img_dir', '.jpg', cv2.INTER_AREA), ('ann_dir', '.png', cv2.INTER_NEAREST)):
        for split in ('train', 'val'):
            files = sorted((source / kind / split).glob(f'*{suffix}'))
            if not files:
                raise DataError(f'{source / kind / split} contains no *{suffix}. Pass --camvid DIR, the CamVid folder.')
            for file in files:
                place = target / kind / split / f'{file.stem}.png'
                if place.is_file():
                    continue
                picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
                if picture is None:
                    raise DataError(f'{file} is damaged. Download it again.')
                place.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(place) as temporary:
                    cv2.imwrite(str(temporary), cv2.resize(picture, HALF, interpolation=method))


def _command(*arguments: str) -> None:
    logger.info('rass-mm %s', ' '.join(arguments))
    if subprocess.run([sys.executable, '-W', 'ignore', '-m', 'rass_mm', *arguments]).returncode:
        raise RassError(f'rass-mm {" ".join(arguments)} failed. See its message above.')
