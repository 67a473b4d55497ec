"""Makes the data and the bases required by the configs with `rass-mm` commands. Finished parts are kept."""

import logging
import subprocess
import sys
from pathlib import Path

import cv2

from experiments.systems import RECIPE_VERSION
from rass_mm.errors import DataError, RassError
from rass_mm.files.atomic import atomic_path

logger = logging.getLogger(__name__)
DATA, BASES = Path('data/experiments'), Path('bases/experiments')
HALF = (240, 180)
UNET = ['--unet-crop', '16', '--unet-batch', '16', '--snr-gamma', '5', '--unet-steps']
CAMVID = [
    *('--data', 'rass/rass_camvid_tiny.py', '--cfg-options', 'train_dataloader.dataset.img_suffix=.png'),
    f'train_dataloader.dataset.data_root={DATA}/camvid-half',
]


def prepare(setting: str, camvid: Path) -> None:
    """Makes the data and the bases of one setting.

    Args:
        setting: 'scenes' or 'camvid'.
        camvid: the full-size CamVid (`img_dir/{train,val}/*.jpg`, `ann_dir/{train,val}/*.png`).

    Raises:
        RassError: a command failed.
    """
    if setting == 'scenes':
        folder = DATA / 'scenes'
        if not (folder / 'scenes.json').is_file():
            _command('make-scenes', str(folder), '--train', '2000', '--val', '200')
    else:
        folder = DATA / 'camvid-half'
        halve(camvid, folder)
    degraded = (str(folder / 'img_dir' / 'val'), str(folder / 'img_lq' / 'val'))
    _command('make-lq', *degraded, '--seed', '0', '--recipe-version', str(RECIPE_VERSION))
    for name, options in bases(setting).items():
        _command('make-base', str(BASES / name), *options)


def bases(setting: str) -> dict[str, list[str]]:
    """Returns the `make-base` options by folder name; initial bases are listed before the bases that use them."""
    # At the default rate, the scenes' autoencoder does not improve from step 160 to 1500. Continue at a lower rate.
    gentle = ['--start', str(BASES / 'scenes-tiny'), '--fresh-unet', '--vae-steps', '900', '--vae-rate', '6e-4']
    same = ['--start', str(BASES / setting), '--fresh-unet', '--vae-steps', '0', *UNET]
    scenes = {'scenes-tiny': [], 'scenes': ['--scenes', '4096', *gentle, *UNET, '10000']}
    if setting == 'scenes':
        return {
            **scenes,
            'scenes-short': ['--scenes', '4096', *same, '300'],
            'scenes-random': ['--scenes', '64', *same, '0'],
        }
    further = ['--start', str(BASES / 'scenes'), '--vae-steps', '600', '--vae-rate', '6e-4']
    return {
        **scenes,
        'camvid': [*CAMVID, *further, *UNET, '3000'],
        'camvid-alone': [
            *CAMVID,
            *('--vae-steps', '1200', '--unet-crop', '24', '--unet-batch', '8', '--unet-steps', '5000'),
        ],
        'camvid-short': [*CAMVID, *same, '300'],
        'camvid-random': [*CAMVID, *same, '0'],
    }


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
