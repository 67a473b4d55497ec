"""Published results, which a report shows next to measured ones.

Nothing in this module was measured with this package. Values are strings, as printed in the publication.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RASS_PAPER = 'Guan et al., arXiv 2602.14042 (IJCV 134(5):229, 2026)'
OSEDIFF_PAPER = 'Wu et al., OSEDiff, arXiv 2406.08177'

WAYS = ('dt', 'r2s', 'ft')
"""Settings of the published table: clean training, restoration before segmentation, and degraded training."""
SEGMENTATION: dict[str, dict[str, tuple[str | None, str | None, str | None]]] = {
    'SegFormer': {'ADE20K-LQ': ('26.37', '44.34', '34.57'), 'RealLQ': ('22.54', '25.31', '22.63')},
    'Mask2Former': {'ADE20K-LQ': ('37.15', '45.64', '44.19'), 'RealLQ': ('33.15', '34.83', '34.41')},
    'FeedFormer': {'ADE20K-LQ': ('22.62', '41.39', '23.98'), 'RealLQ': ('20.87', '21.19', '19.19')},
    'SeaFormer': {'ADE20K-LQ': ('16.39', '38.09', '23.24'), 'RealLQ': ('15.52', '17.86', '14.97')},
    'PEM+': {'ADE20K-LQ': ('33.55', '45.54', '41.52'), 'RealLQ': ('33.52', '31.80', '34.38')},
    'RASS': {'ADE20K-LQ': (None, '46.81', '47.42'), 'RealLQ': (None, '37.84', '39.80')},
}
"""mIoU (%) by system and data set, in the order of `WAYS`."""
COST: dict[str, dict[str, str]] = {
    'SegFormer': {'parameters': '84.7M', 'trained': '84.7M'},
    'Mask2Former': {'FPS': '5.4', 'parameters': '215.5M', 'trained': '215.5M'},
    'FeedFormer': {'FPS': '50.4', 'parameters': '29.1M', 'trained': '27.9M'},
    'SeaFormer': {'FPS': '31.1', 'parameters': '14M', 'trained': '14M'},
    'PEM+': {'FPS': '9.7', 'parameters': '207.1M', 'trained': '207.1M'},
    'RASS': {'FPS': '3.4', 'parameters': '1788.7M', 'trained': '27.9M'},
}
"""Frames per second on the authors' GPU and parameter counts, by system."""
RESTORATION: dict[str, dict[str, dict[str, str]]] = {
    'SCR': {'RealSR': {'PSNR': '25.34'}, 'DIV2K': {'PSNR': '23.73-23.75'}, 'DRealSR': {'MANIQA': '.6689'}},
    'OSEDiff': {
        'RealSR': {
            **{'PSNR': '25.15', 'SSIM': '.7341', 'LPIPS': '.2921', 'DISTS': '.2128'},
            **{'NIQE': '5.6476', 'MUSIQ': '69.09', 'MANIQA': '.6326', 'CLIPIQA': '.6693'},
        },
        'DRealSR': {
            **{'PSNR': '27.92', 'SSIM': '.7835', 'LPIPS': '.2968', 'DISTS': '.2165'},
            **{'NIQE': '6.4902', 'MUSIQ': '64.65', 'MANIQA': '.5899', 'CLIPIQA': '.6963'},
        },
        'DIV2K': {
            **{'PSNR': '23.72', 'SSIM': '.6108', 'LPIPS': '.2941', 'DISTS': '.1976'},
            **{'NIQE': '4.7097', 'MUSIQ': '67.97', 'MANIQA': '.6148', 'CLIPIQA': '.6683'},
        },
    },
}
IMAGES = {'ADE20K-LQ': 2000, 'RealSR': 100, 'DRealSR': 93, 'DIV2K': 3000}
"""Number of test images in the publication, by data set. A test on another number of images is not comparable."""
SEGMENTORS = {'rass': 'RASS', 'mask2former_swin_l': 'Mask2Former', 'segformer_b5': 'SegFormer'}
"""Maps the prefix of a config name to the name of the system in the paper."""
CONFIG = re.compile(r'(?P<name>[a-z0-9_]+?)(_(?P<way>dt|r2s|ft))?_(ade20k_lq|reallq)(_official)?')


def claimed(record: Mapping[str, Any]) -> tuple[dict[str, str], str | None]:
    """Returns the published results that correspond to a recorded test.

    Args:
        record: contents of a `metrics.json`.

    Returns:
        A dict from metric names to published values, and the publication. If no results are published, the dict is
        empty and the publication is None.
    """
    data = _data(record)
    if data is None or record.get('images') != IMAGES.get(data, record.get('images')):
        return {}, None
    system = _segmentor(record)
    if system and data in SEGMENTATION[system[0]]:
        value = SEGMENTATION[system[0]][data][WAYS.index(system[1])]
        return ({'mIoU': value}, RASS_PAPER) if value else ({}, None)
    restorer = _restorer(record)
    scores = RESTORATION.get(restorer or '', {}).get(data, {})
    return (scores, RASS_PAPER if restorer == 'SCR' else OSEDIFF_PAPER) if scores else ({}, None)


def claimed_cost(config: str) -> dict[str, str]:
    """Returns the published speed and parameter counts of the system in a config, or {} if none are published."""
    system = _segmentor({'config': config})
    return COST.get(system[0], {}) if system else {}


def _segmentor(record: Mapping[str, Any]) -> tuple[str, str] | None:
    """Returns the name in the paper and the setting in `WAYS` of a tested segmentor, or None if the paper lacks it."""
    found = CONFIG.fullmatch(Path(str(record.get('config'))).stem)
    if not found or found['name'] not in SEGMENTORS:
        return None
    return SEGMENTORS[found['name']], found['way'] or 'ft'


def _restorer(record: Mapping[str, Any]) -> str | None:
    stem, prefix = Path(str(record.get('config'))).stem, (record.get('data') or {}).get('img')
    if record.get('mode') not in (None, 'restore'):
        return None  # scores of the ceiling or the input, not of the restorer
    if stem == 'osediff_sd21_pairs' or (stem == 'pairs_as_they_are' and prefix == 'osediff'):
        return 'OSEDiff'
    return 'SCR' if stem == 'scr_ade20k_pairs' else None


def _data(record: Mapping[str, Any]) -> str | None:
    prefixes, kind = record.get('data') or {}, str(record.get('dataset')).rpartition('.')[2]
    if kind.startswith('RealLQ'):
        return 'RealLQ'
    if kind.startswith('ADE20K'):
        return 'ADE20K-LQ' if 'lq' in str(prefixes.get('img_path')) else None
    root = Path(str(record.get('data_root') or '')).name.lower()
    return next((name for name in ('DRealSR', 'RealSR', 'DIV2K') if name.lower() in root), None)
