"""Checks of the data folders of a config before models are built."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from rass_mm.config.kinds import as_list, type_name
from rass_mm.config.registries import registered
from rass_mm.datasets.reallq_layout import IMAGES, layouts_in
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.errors import DataError
from rass_mm.files.regular import check_regular
from rass_mm.files.walking import walk

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}
PACKAGES = ('mmseg', 'mmagic', 'rass_mm')
"""Packages whose data sets use the paths of their configs, and the default suffix in their signatures."""
LISTING = (
    *('mmengine.dataset.base_dataset', 'mmseg.datasets.basesegdataset'),
    'mmagic.datasets.basic_image_dataset',
)
"""Modules of the methods that list the files of a folder."""


def check_data_folders(loader: dict[str, Any] | None, name: str) -> None:
    """Checks that the data sets of a dataloader config have images, and that RealLQ has labels in one of its layouts.

    Data sets inside wrappers are checked too. Only local data sets with a `data_prefix` for images are checked, and
    only classes that list their files as the base classes of mmseg and mmagic do, see `lists_files`.

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

    Only data sets with `img_path` in `data_prefix` and `LoadLabelStrict` in their pipeline are checked, except for
    classes with a `load_data_list` of their own. The labels of RealLQ are checked by `check_data_folders` instead.

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
        if not lists_files(dataset):
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


def lists_files(dataset: Mapping[str, Any]) -> bool:
    """Returns whether a data set lists the files of its folders as the base classes of mmseg and mmagic do.

    Another class, with a `load_data_list` of its own, may read its folders and its `ann_file` in any format.
    """
    if dataset.get('type') is None:
        return True
    found = [getattr(_class_of(dataset), method, None) for method in ('load_data_list', '_join_prefix', 'full_init')]
    return all(getattr(method, '__module__', None) in LISTING for method in found)


def _class_of(dataset: Mapping[str, Any]) -> Any:
    kind = dataset.get('type')
    return DATASETS.get(kind) or registered(kind) if isinstance(kind, str) else kind


def _as_built(dataset: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns a config with the paths and the suffix that its class uses, or None if the class cannot be built.

    A class of another package may set them in its constructor, so it is built without reading its files.
    """
    kind = _class_of(dataset)
    if kind is None or kind.__module__.partition('.')[0] in PACKAGES:
        return dataset
    try:
        built = DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True})
        names = {'ann_file': built.ann_file, 'img_suffix': getattr(built, 'img_suffix', None)}
        return {**dataset, **names, 'data_root': None, 'data_prefix': built.data_prefix}
    except Exception:  # code of the user may raise any error; it is reported when the runner builds the data set
        return None


def _check_folders(dataset: Mapping[str, Any], name: str, path: str) -> None:
    prefixes = dataset.get('data_prefix') or {}
    reallq = type_name(dataset) == 'RealLQDataset'
    if reallq:
        prefixes = {'img_path': IMAGES, **prefixes}
    prefix = prefixes.get('img_path', prefixes.get('img'))  # key in mmseg and mmagic
    if prefix is None or '://' in str(prefix) or not lists_files(dataset):
        return
    used = _as_built(dataset)
    if used is None:
        return
    if used is not dataset:
        prefix = used['data_prefix'].get('img_path', used['data_prefix'].get('img', ''))
    _check_images(used, prefix, name, path)
    _check_list(used, name, path)
    if reallq and prefixes.get('seg_map_path') is None:
        try:
            layouts_in(dataset.get('data_root'), dataset.get('seg_map_suffix', '.png'))
        except DataError as error:
            raise DataError(f'{name}: {error}') from None


def _image_suffixes(dataset: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the suffixes of the images of a data set: those of its config or, by default, of its class."""
    suffix, kind = dataset.get('img_suffix'), _class_of(dataset)
    for base in kind.__mro__ if suffix is None and inspect.isclass(kind) else ():
        default = inspect.signature(base).parameters.get('img_suffix')
        if default is not None and default.default is not default.empty:
            suffix = default.default
            break
    suffixes = (suffix,) if isinstance(suffix, str) else tuple(suffix or ())
    return suffixes or tuple(sorted(SUFFIXES))


def _check_list(dataset: Mapping[str, Any], name: str, path: str) -> None:
    """Checks the list of image names (`ann_file`) of one of mmseg's data sets."""
    given, kind = dataset.get('ann_file'), _class_of(dataset)
    if not given or '://' in str(given) or not (inspect.isclass(kind) and issubclass(kind, BaseSegDataset)):
        return
    file = Path(dataset.get('data_root') or '') / str(given)
    if file.is_dir():
        return
    suffix = _image_suffixes(dataset)[0]
    fix = f'Write one image name per line, without {suffix}, or remove {path}.ann_file to use all images.'
    check_regular(file, fix)
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
    wanted = _image_suffixes(dataset)
    if not any(file.name.endswith(wanted) and file.is_file() for file in walk(folder)):
        raise DataError(
            f'{name}: the folder {folder} contains no images that end in {", ".join(wanted)}. '
            f'Add images, pass {option}, or set {path}.img_suffix to the suffix of your images.'
        )
