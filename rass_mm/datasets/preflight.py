"""Checks of the data folders of a config before models are built."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rass_mm.datasets.reallq_layout import IMAGES, layouts_in
from rass_mm.errors import DataError

SUFFIXES = {'.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp'}


def check_data_folders(loader: dict[str, Any] | None, name: str) -> None:
    """Checks that the data set of a dataloader config has images, and that RealLQ has labels in one of its layouts.

    Only local data sets with a `data_prefix` for images are checked; wrappers and other data sets are skipped.

    Args:
        loader: `train_dataloader`, `val_dataloader` or `test_dataloader` of a config.
        name: name of the data loader, for the message.

    Raises:
        DataError: a folder is missing or has no file with the expected suffix.
    """
    dataset = (loader or {}).get('dataset', {})
    prefixes = dataset.get('data_prefix') or {}
    reallq = str(dataset.get('type')).rpartition('.')[2] == 'RealLQDataset'
    if reallq:
        prefixes = {'img_path': IMAGES, **prefixes}
    prefix = prefixes.get('img_path', prefixes.get('img'))  # key in mmseg and mmagic
    if prefix is None or '://' in str(prefix):
        return
    _check_images(dataset, prefix, name)
    if reallq and prefixes.get('seg_map_path') is None:
        try:
            layouts_in(dataset.get('data_root'), dataset.get('seg_map_suffix', '.png'))
        except DataError as error:
            raise DataError(f'{name}: {error}') from None


def _check_images(dataset: Mapping[str, Any], prefix: str, name: str) -> None:
    folder = Path(dataset.get('data_root') or '') / prefix
    option = f'--cfg-options {name}.dataset.data_root=/path/to/data'
    if not folder.is_dir():
        hint = f' Make a degraded copy with: rass-mm make-lq CLEAN_FOLDER {folder}' if 'lq' in str(prefix) else ''
        raise DataError(f'{name}: the image folder {folder} does not exist. Put the data there or set {option}.{hint}')
    suffix = dataset.get('img_suffix')
    wanted = {suffix} if suffix else SUFFIXES
    if not any(
        path.suffix in wanted or path.name.endswith(tuple(wanted)) for path in folder.rglob('*') if path.is_file()
    ):
        raise DataError(
            f'{name}: the folder {folder} contains no images that end in {", ".join(sorted(wanted))}. '
            f'Add images, set {option}, or set {name}.dataset.img_suffix to the suffix of your images.'
        )
