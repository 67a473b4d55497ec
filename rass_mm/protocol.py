"""Protocol line of a test, which states the metrics and the images. Tests with equal lines can be compared."""

from pathlib import Path
from typing import Any

from rass_mm.config.kinds import as_list, type_name
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.degradation.copies import CopyIdentity
from rass_mm.degradation.versions import lq_steps, manifest_version, step_version
from rass_mm.files.manifest import MANIFEST, read_header
from rass_mm.files.schemas import checked
from rass_mm.metrics.iou import MEAN_OVER

AT_SIZE = " at the labels' size"


def protocol_line(config: Any, images: int) -> str:
    """Returns a line that states the metrics and the images of a test.

    If two tests have the same line, their metrics can be compared in one table.

    Args:
        config: a config with `test_dataloader` and `test_evaluator`.
        images: number of test images.
    """
    places = ' and '.join(_place(config, part) for _, part in leaf_paths(config.test_dataloader, 'test_dataloader'))
    evaluators = as_list(config.test_evaluator)
    if any(type_name(evaluator) == 'RestorationMetrics' for evaluator in evaluators):
        return f'Image quality, mean over {images} images of {places}; PSNR and SSIM on Y (BT.601), no border crop'
    rule = next((part['mean_over'] for part in evaluators if part.get('mean_over')), 'all')
    return with_rule(f'mIoU, aAcc and mAcc (%) over all pixels of {images} images of {places}{AT_SIZE}', rule)


def _place(config: Any, dataset: Any) -> str:
    restored = any(type_name(evaluator) == 'RestorationMetrics' for evaluator in as_list(config.test_evaluator))
    return _pairs(dataset) if restored else _images(dataset)


def with_rule(line: str, rule: str = 'all') -> str:
    """Adds the classes over which the mIoU is averaged to a protocol line.

    A line that already states them, or that is not about mIoU, is returned unchanged.

    Args:
        line: the protocol line.
        rule: 'all' or 'present', see `rass_mm.metrics.iou.MEAN_OVER`.
    """
    named = line.startswith('mIoU') and ', mIoU over ' not in line
    return line.replace(AT_SIZE, f', mIoU over {MEAN_OVER[rule]},{AT_SIZE}') if named else line


def recipe_versions(config: Any) -> dict[str, int | None]:
    """Returns the recipe versions of the degraded test images (`tested`) and of the training data (`train_pipeline`).

    A version is None if nothing is degraded or if the recipe is unknown, e.g. for real images, for a copy without a
    manifest, or for test data of several versions.

    Args:
        config: a config with `test_dataloader`.
    """
    trained = [step_version(step) for step in lq_steps(config.get('train_dataloader'))]
    parts = [part for _, part in leaf_paths(config.test_dataloader, 'test_dataloader')]
    tested = {copy_version(_image_folder(part)) for part in parts}
    return {
        'tested': tested.pop() if len(tested) == 1 else None,
        'train_pipeline': trained[0] if trained else None,
    }


def copy_version(folder: Path) -> int | None:
    """Returns the recipe version of a degraded copy, or None if the folder has no manifest of a degraded copy."""
    header = _copy_header(folder)
    return manifest_version(header) if header else None


def _pairs(dataset: Any) -> str:
    """Describes the image pairs of a restoration test.

    If `data_prefix` has a folder of clean images (`gt`), it identifies the data set, because the degraded images differ
    between tests. Otherwise, the degraded images identify it.
    """
    prefixes = dataset.get('data_prefix') or {}
    if 'gt' in prefixes:
        return f'{_below(dataset, "")} against {prefixes["gt"]}'
    return f'{_images(dataset)} against their clean ones'


def _images(dataset: Any) -> str:
    header = _copy_header(_image_folder(dataset))
    made = ''
    if header:
        version = manifest_version(header)
        # Version 1 is not stated, so that new lines stay equal to those recorded before versions were introduced.
        named = '' if version == 1 else f', version {version}'
        made = f', degraded copy of seed {header["seed"]} (recipe {header["fingerprint"][:8]}{named})'
    return f'{_below(dataset, _image_prefix(dataset))}{made}'


def _image_folder(dataset: Any) -> Path:
    return Path(dataset.get('data_root') or '') / _image_prefix(dataset)


def _image_prefix(dataset: Any) -> str:
    prefixes = dataset.get('data_prefix') or {}
    return str(prefixes.get('img_path', prefixes.get('img', '')))


def _below(dataset: Any, prefix: str) -> str:
    """Returns the data path without its machine-specific part, and the data set's type unless it is generic."""
    place = (Path(Path(dataset.get('data_root') or '').name) / prefix).as_posix()
    name = type_name(dataset)
    return place if name == 'BasicImageDataset' else f'{place} ({name})'


def _copy_header(folder: Path) -> dict[str, Any] | None:
    header = read_header(folder / MANIFEST)
    if not {'seed', 'fingerprint'} <= header.keys():
        return None
    fix = 'Make the copy again with rass-mm make-lq.'
    return checked(header, CopyIdentity, f'{folder / MANIFEST} is damaged', fix)
