"""Class names and colours of a trained segmentor."""

import colorsys
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mmseg.registry import DATASETS
from torch import nn

from rass_mm.datasets.class_checks import single_class_is_zero
from rass_mm.datasets.classes import LOADERS
from rass_mm.datasets.metainfo import dataset_classes
from rass_mm.datasets.wrappers import leaf_paths

logger = logging.getLogger(__name__)

Palette = list[tuple[int, int, int]]
GOLDEN = 0.618034
"""Distance of the hues of two consecutive classes, as a fraction of the colour circle (golden ratio)."""


def classes_of(segmentor: nn.Module, meta: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[list[str], Palette]:
    """Returns the class names and the colours of a segmentor, indexed by label.

    They are looked up in the checkpoint, then in the data sets of the config, then in the model. If the number of names
    differs from the number of classes, the names are 'class 0', 'class 1', etc. If there are no colours,
    `drawn_palette` provides them.

    A model with a single channel has the labels 0 and 1. Label 1 is its class and label 0 the background, unless the
    model was trained with label 0 as its only class, see `single_class_is_zero`.

    Args:
        segmentor: an mmseg segmentor.
        meta: `meta` of the checkpoint.
        config: config of the segmentor.
    """
    stored = meta.get('dataset_meta') or {}
    names = stored.get('classes') or meta.get('CLASSES') or _config_classes(config) or _own_classes(segmentor)
    names = [names] if isinstance(names, str) else list(names)
    palette = stored.get('palette') or meta.get('PALETTE') or _data_palette(config)
    single = getattr(segmentor, 'out_channels', None) == 1
    count = 2 if single else getattr(segmentor, 'out_channels', None) or len(names)
    colors = [tuple(map(int, color)) for color in palette] if _is_palette(palette, len(names)) else None
    if single and len(names) == 1:
        names, colors = _two_classes(names, colors, any(map(single_class_is_zero, _datasets(config))))
    if len(names) != count:
        if names:
            logger.warning(
                'The model predicts %d classes, but %d class names were found. They are not used.', count, len(names)
            )
        names, colors = [f'class {label}' for label in range(count)], None
    return names, colors or drawn_palette(count)


def _two_classes(names: list[str], colors: Palette | None, class_is_zero: bool) -> tuple[list[str], Palette | None]:
    """Adds the background to the name and the colour of a single class."""
    if class_is_zero:
        logger.warning(
            'The model was trained with %s as its only class (id 0), so it cannot tell it from other things. Train it '
            'again with the background as a class of its own.',
            names[0],
        )
        return [*names, 'background'], [*colors, (0, 0, 0)] if colors else None
    return ['background', *names], [(0, 0, 0), *colors] if colors else None


def drawn_palette(count: int) -> Palette:
    """Returns `count` RGB colours in 0..255, with different hues for consecutive classes."""
    colors = []
    for label in range(count):
        shade = (0.65, 0.95), (0.9, 0.65), (0.45, 0.8)
        red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN % 1, *shade[label % 3])
        colors.append((round(255 * red), round(255 * green), round(255 * blue)))
    return colors


def _is_palette(palette: Any, count: int) -> bool:
    return isinstance(palette, Sequence) and not isinstance(palette, str) and len(palette) == count > 0


def _datasets(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [leaf for name in LOADERS[::-1] for _, leaf in leaf_paths(config.get(name), name)]


def _config_classes(config: Mapping[str, Any]) -> list[str]:
    return next((names for names in map(dataset_classes, _datasets(config)) if names), [])


def _data_palette(config: Mapping[str, Any]) -> Any:
    for dataset in _datasets(config):
        palette = (dataset.get('metainfo') or {}).get('palette')
        kind = dataset.get('type')
        known = DATASETS.get(kind) if isinstance(kind, str) else kind
        palette = palette or getattr(known, 'METAINFO', {}).get('palette')
        if palette:
            return palette
    return None


def _own_classes(segmentor: nn.Module) -> Sequence[str]:
    return getattr(segmentor, 'classes', None) or ()
