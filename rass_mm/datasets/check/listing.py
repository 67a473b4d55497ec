"""Lists the files of a data set and determines the rules for its labels."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmseg.registry import DATASETS, TRANSFORMS

from rass_mm.config.kinds import type_name
from rass_mm.datasets.preflight import SUFFIXES, check_data_folders
from rass_mm.datasets.reallq_layout import LabelLayout
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.walking import chosen_files, described_left_out, walk

IGNORED = 255
"""Value to which mmseg maps id 0 if `reduce_zero_label` is set."""


@dataclass(frozen=True)
class LabelRules:
    """Meaning of the ids in label files.

    Args:
        classes: class names in the order of their ids; empty if the data set has no names.
        num_classes: number of classes, with the valid class ids 0 to num_classes - 1; None if it is unknown.
        reduce_zero_label: whether id 0 in a file is ignored and id k is class k - 1.
        ignore_index: class id of ignored pixels.
        label_map: maps original class ids to the ids of selected classes; None if all classes are used.
        layout: layout of RealLQ that corresponds to the label folder; None for other data sets and folder names.
        drawn_on: treatment of the labels of images with an EXIF orientation, see `LoadLabelStrict`.
    """

    classes: tuple[str, ...]
    num_classes: int | None
    reduce_zero_label: bool = False
    ignore_index: int = IGNORED
    label_map: dict[int, int] | None = None
    layout: LabelLayout | None = None
    drawn_on: str | None = None

    def class_of(self, raw: int) -> int | None:
        """Converts an id in a label file to a class id, as mmseg does on loading. Returns None for ignored ids."""
        value = raw
        if self.reduce_zero_label:
            value = IGNORED if raw in (0, IGNORED) else raw - 1
        value = (self.label_map or {}).get(value, value)
        return None if value == self.ignore_index else value

    def valid(self, raw: int) -> bool:
        """Returns whether an id in a label file is ignored or belongs to a class. True if `num_classes` is None."""
        value = self.class_of(raw)
        return value is None or value >= 0 and (self.num_classes is None or value < self.num_classes)


@dataclass(frozen=True)
class Sample:
    """Paths of an image, its label and its clean image. The last two may be None."""

    image: str
    label: str | None = None
    clean: str | None = None


@dataclass(frozen=True)
class Listing:
    """Files of a data set.

    Args:
        samples: all images, with their labels and clean images if these exist.
        without_partner: images with a missing label or clean image.
        without_image: labels or clean images with a missing image.
        rules: label rules; None for a data set without labels.
        enlarged: whether images may be smaller than their clean partners.
        hints: messages about possible problems.
        labels: label folder; None for a data set without labels.
        max_pixels: largest number of pixels that a file may have, the same limit as in `LoadImageStrict`.
    """

    samples: list[Sample]
    without_partner: list[str]
    without_image: list[str]
    rules: LabelRules | None
    enlarged: bool = False
    hints: list[str] = field(default_factory=list)
    labels: str | None = None
    max_pixels: int = MAX_PIXELS


def list_dataset(config: dict[str, Any], loader: str) -> Listing:
    """Lists the files of a data set.

    Args:
        config: config of the data set. Its `data_prefix` has the keys `img_path` and `seg_map_path`, as in mmseg, or
            `img` and `gt`, as in mmagic's data sets of image pairs.
        loader: name of its data loader, for messages.

    Raises:
        DataError: a folder is missing or empty.
        ConfigError: the data set is not registered or has no image folder.
    """
    check_data_folders({'dataset': config}, loader)
    if isinstance(config['type'], str) and DATASETS.get(config['type']) is None:
        raise ConfigError(f"{loader}: {config['type']} is not registered. Add its package to 'custom_imports'.")
    dataset = DATASETS.build({**config, 'pipeline': [], 'lazy_init': True})
    prefixes = dataset.data_prefix
    image_key, partner_key = ('img_path', 'seg_map_path') if 'img_path' in prefixes else ('img', 'gt')
    if image_key not in prefixes or '://' in prefixes[image_key]:
        raise ConfigError(
            f'{loader}: {config["type"]} has no local image folder in data_prefix, so it cannot be checked. Set its '
            'data_prefix to local folders.'
        )
    folders = Path(prefixes[image_key]), prefixes.get(partner_key)
    if folders[1] is not None and not Path(folders[1]).is_dir():
        raise DataError(
            f'{loader}: the folder {folders[1]} does not exist. Put the labels or clean images there, or set '
            f'{loader}.dataset.data_prefix.{partner_key}.'
        )
    found = dataset.load_data_list()
    pairs = partner_key == 'gt'
    listing = _pairs(found, folders, config) if pairs else _labelled(found, folders, dataset, config)
    most = (_step(config, 'LoadImageStrict') or {}).get('max_pixels', MAX_PIXELS)
    return dataclasses.replace(listing, max_pixels=most)


def _labelled(found: list[dict], folders: tuple[Path, str | None], dataset: Any, config: dict[str, Any]) -> Listing:
    images, labels = folders
    cleaner = _step(config, 'LoadCleanImage')
    cleaner = TRANSFORMS.build(cleaner) if cleaner else None
    samples = [
        Sample(info['img_path'], info.get('seg_map_path'), cleaner and str(cleaner.partner(info['img_path'])))
        for info in found
    ]
    hints, without_image = [], []
    if labels is not None:
        suffixes = dataset.img_suffix, dataset.seg_map_suffix
        known = {sample.label for sample in samples}
        spare = [file for file in _files(Path(labels), (suffixes[1],)) if str(file) not in known]
        expected = [
            images / f'{str(file.relative_to(labels)).removesuffix(suffixes[1])}{suffixes[0]}' for file in spare
        ]
        without_image = [str(file) for file, image in zip(spare, expected, strict=True) if not image.exists()]
    unused = [file for file in _files(images, tuple(SUFFIXES)) if not file.name.endswith(dataset.img_suffix)]
    if unused and labels != str(images):
        hints.append(f'{images} contains {len(unused)} file(s) not ending in {dataset.img_suffix}, which are not used.')
    _, left_out = chosen_files(images, walk(images), (*SUFFIXES, dataset.img_suffix.lower()))
    hints += described_left_out(left_out) if labels != str(images) else []
    rules = None if labels is None else _rules(dataset, config, hints)
    enlarged = bool(cleaner and cleaner.upscale)
    return dataclasses.replace(_complete(samples, without_image, rules, enlarged, hints), labels=labels)


def _pairs(found: list[dict], folders: tuple[Path, str | None], config: dict[str, Any]) -> Listing:
    samples = [Sample(info['img_path'], clean=info.get('gt_path')) for info in found]
    known = {sample.clean for sample in samples}
    spare = [] if folders[1] is None else _files(Path(folders[1]), tuple(SUFFIXES))
    cleaner = _step(config, 'LoadCleanImage')
    enlarged = cleaner is None or bool(cleaner.get('upscale'))  # without this step, the network handles the scale
    return _complete(samples, [str(file) for file in spare if str(file) not in known], None, enlarged, [])


def _complete(
    samples: list[Sample], without_image: list[str], rules: LabelRules | None, enlarged: bool, hints: list[str]
) -> Listing:
    """Returns a listing in which missing labels and clean images are None. Their images are in `without_partner`."""
    kept, lacking = [], []
    for sample in samples:
        label, clean = (path if path and Path(path).is_file() else None for path in (sample.label, sample.clean))
        kept.append(Sample(sample.image, label, clean))
        if (label, clean) != (sample.label, sample.clean):
            lacking.append(sample.image)
    return Listing(kept, lacking, without_image, rules, enlarged, hints)


def _rules(dataset: Any, config: dict[str, Any], hints: list[str]) -> LabelRules:
    classes = tuple(dataset.metainfo.get('classes') or ())
    step = _step(config, 'LoadLabelStrict') or {}
    num_classes = step.get('num_classes') or len(classes) or None
    if classes and num_classes != len(classes):
        hints.append(f'LoadLabelStrict has num_classes={num_classes}, but the data set has {len(classes)} classes.')
    ignore = step.get('ignore_index', IGNORED)  # that of the data set has no effect, see `ignored_faults`
    layout, drawn_on = getattr(dataset, 'label_layout', None), step.get('drawn_on')
    reduced = bool(dataset.reduce_zero_label)
    return LabelRules(classes, num_classes, reduced, ignore, dataset.label_map, layout, drawn_on)


def _step(config: dict[str, Any], name: str) -> dict[str, Any] | None:
    steps = config.get('pipeline') or ()
    return next((step for step in steps if type_name(step) == name), None)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(file for file in walk(folder) if file.name.endswith(suffixes) and file.is_file())
