"""Checks of the data folders of a config before models are built."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from rass_mm.config.kinds import as_list, type_name
from rass_mm.datasets.reallq_layout import IMAGES, layouts_in
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.errors import DataError
from rass_mm.files.walking import walk

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


def check_data_folders(loader: dict[str, Any] | None, name: str) -> None:
    """Checks that the data sets of a dataloader config have images, and that RealLQ has labels in one of its layouts.

    Data sets inside wrappers are checked too. Only local data sets with a `data_prefix` for images are checked.

    Args:
        loader: `train_dataloader`, `val_dataloader` or `test_dataloader` of a config.
        name: name of the data loader, for the message.

    Raises:
        DataError: a folder is missing or has no file with the expected suffix.
    """
    for path, dataset in leaf_paths(loader, name):
        _check_folders(dataset, name, path)


def check_labels(config: dict[str, Any], name: str) -> None:
    """Checks that the data sets of a dataloader have label folders, unless its evaluators only write results.

    Only data sets with `img_path` in `data_prefix` and `LoadLabelStrict` in their pipeline are checked. The labels
    of RealLQ are checked by `check_data_folders` instead.

    Args:
        config: a config with the dataloader and its evaluator.
        name: `train_dataloader`, `val_dataloader` or `test_dataloader`.

    Raises:
        DataError: labels are needed but no label folder is set, or the label folder does not exist.
    """
    evaluator, trains = name.replace('dataloader', 'evaluator'), name == 'train_dataloader'
    needed = trains or any(not part.get('format_only') for part in as_list(config.get(evaluator)))
    for path, dataset in leaf_paths(config.get(name), name):
        prefixes = dataset.get('data_prefix') or {}
        steps = [type_name(step) for step in dataset.get('pipeline') or ()]
        if 'img_path' not in prefixes or type_name(dataset) == 'RealLQDataset' or 'LoadLabelStrict' not in steps:
            continue
        labels = prefixes.get('seg_map_path')
        if labels is None and needed:
            without = f' For predictions without labels, use rass-mm segment, or set {evaluator}.format_only=True.'
            raise DataError(
                f'{path} has no labels. Set {path}.data_prefix.seg_map_path to the label folder.'
                f'{"" if trains else without}'
            )
        folder = Path(dataset.get('data_root') or '') / str(labels)
        if labels is not None and '://' not in str(labels) and not folder.is_dir():
            without = '' if needed else ' If the images have no labels, set seg_map_path=None.'
            raise DataError(
                f'{path}: the label folder {folder} does not exist. Put the label maps there, or set '
                f'{path}.data_prefix.seg_map_path to the folder that contains them.{without}'
            )


def drop_absent_labels(config: dict[str, Any]) -> None:
    """Removes `seg_map_path=None` from the data sets of a config, in place, because mmengine does not accept None."""
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for _, dataset in leaf_paths(config.get(loader), loader):
            prefixes = dataset.get('data_prefix')
            if not isinstance(prefixes, dict) or type_name(dataset) == 'RealLQDataset':
                continue
            if 'seg_map_path' in prefixes and prefixes['seg_map_path'] is None:
                del prefixes['seg_map_path']


def follow_clean_suffix(config: dict[str, Any]) -> None:
    """Replaces the suffix of `LoadCleanImage` in validation and test pipelines by `clean_val.img_suffix`, in place."""
    suffix = (config.get('clean_val') or {}).get('img_suffix')
    for loader in ('val_dataloader', 'test_dataloader'):
        for _, dataset in leaf_paths(config.get(loader), loader) if suffix else ():
            for step in dataset.get('pipeline') or ():
                if type_name(step) == 'LoadCleanImage' and step.get('suffix'):
                    step['suffix'] = suffix


def _check_folders(dataset: Mapping[str, Any], name: str, path: str) -> None:
    prefixes = dataset.get('data_prefix') or {}
    reallq = type_name(dataset) == 'RealLQDataset'
    if reallq:
        prefixes = {'img_path': IMAGES, **prefixes}
    prefix = prefixes.get('img_path', prefixes.get('img'))  # key in mmseg and mmagic
    if prefix is None or '://' in str(prefix):
        return
    _check_images(dataset, prefix, name, path)
    _check_list(dataset, name, path)
    if reallq and prefixes.get('seg_map_path') is None:
        try:
            layouts_in(dataset.get('data_root'), dataset.get('seg_map_suffix', '.png'))
        except DataError as error:
            raise DataError(f'{name}: {error}') from None


def _image_suffix(dataset: Mapping[str, Any]) -> str | None:
    """Returns the suffix of the images of a data set: that of its config, or the default of its class, or None."""
    kind = dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    for base in kind.__mro__ if inspect.isclass(kind) and issubclass(kind, BaseSegDataset) else ():
        default = inspect.signature(base).parameters.get('img_suffix')
        if default is not None and default.default is not default.empty:
            return dataset.get('img_suffix', default.default)
    return dataset.get('img_suffix')


def _check_list(dataset: Mapping[str, Any], name: str, path: str) -> None:
    """Checks the list of image names (`ann_file`) of one of mmseg's data sets."""
    given, kind = dataset.get('ann_file'), dataset.get('type')
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    if not given or '://' in str(given) or not (inspect.isclass(kind) and issubclass(kind, BaseSegDataset)):
        return
    file = Path(dataset.get('data_root') or '') / str(given)
    if file.is_dir():
        return
    fix = (
        f'Write one image name per line, without {_image_suffix(dataset)}, or remove {path}.ann_file to use all images.'
    )
    try:
        text = file.read_bytes().decode()
    except FileNotFoundError:
        raise DataError(f'{name}: the list of images {file} ({path}.ann_file) does not exist. {fix}') from None
    except UnicodeDecodeError:
        text = '\0'
    if '\0' in text:
        raise DataError(f'{name}: the list of images {file} ({path}.ann_file) is not a text file. {fix}')
    if not text.strip():
        raise DataError(f'{name}: the list of images {file} ({path}.ann_file) is empty. {fix}')


def _check_images(dataset: Mapping[str, Any], prefix: str, name: str, path: str) -> None:
    folder = Path(dataset.get('data_root') or '') / prefix
    option = f'--cfg-options {path}.data_root=/path/to/data'
    if not folder.is_dir():
        hint = f' Make a degraded copy with: rass-mm make-lq CLEAN_FOLDER {folder}' if 'lq' in str(prefix) else ''
        raise DataError(f'{name}: the image folder {folder} does not exist. Put the data there or pass {option}.{hint}')
    suffix = _image_suffix(dataset)
    wanted = {suffix} if suffix else SUFFIXES
    if not any(path.name.endswith(tuple(wanted)) and path.is_file() for path in walk(folder)):
        raise DataError(
            f'{name}: the folder {folder} contains no images that end in {", ".join(sorted(wanted))}. '
            f'Add images, pass {option}, or set {path}.img_suffix to the suffix of your images.'
        )
