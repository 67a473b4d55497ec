"""Identity of a robustness test: config, checkpoint and data, identified by content rather than by location."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from rass_mm.analysis.robustness.curve import FORMAT
from rass_mm.analysis.robustness.sweep import Sweep
from rass_mm.datasets.wrappers import data_infos
from rass_mm.diffusion.base import find_base
from rass_mm.errors import CheckpointError, DataError
from rass_mm.files.hashing import content_hash, file_sha256, files_sha256

WEIGHTS = ('base', 'adapter', 'scr_adapter', 'autoencoder', 'checkpoint')
"""Keys of a model config that name weight files."""


def describe(config: Config, source: str, checkpoint: Path, name: str, sweep: Sweep) -> dict[str, Any]:
    """Returns the header of a curve file, which identifies the test.

    Args:
        config: A config from `sweep_config`.
        source: Name of the config as given by the user.
        checkpoint: The checkpoint file to test.
        name: Name of the model in tables and plots.
        sweep: The points to test.

    Raises:
        CheckpointError: the checkpoint does not exist.
        DataError: an image or its label does not exist.
    """
    if not checkpoint.is_file():
        raise CheckpointError(f'Checkpoint {checkpoint} does not exist. Pass a .pth file that training wrote.')
    dataset = config.test_dataloader.dataset
    init_default_scope(config.get('default_scope', 'mmseg'))
    built = DATASETS.build({**dataset, 'pipeline': []})
    samples = list(data_infos(built))
    files = [Path(sample[key]) for sample in samples for key in ('img_path', 'seg_map_path')]
    absent = [file for file in files if not file.is_file()]
    if absent:
        raise DataError(
            f'{absent[0]} does not exist (missing files: {len(absent)}). Add the missing files: mIoU needs a label for '
            'every image.'
        )
    pipeline = [step for step in dataset.pipeline if step['type'] != 'FixedDegradation']
    settings = {
        'model': config.model.to_dict(),
        'pipeline': [dict(step) for step in pipeline],
        'evaluator': dict(config.test_evaluator),
        **({'calibration': True} if sweep.calibration else {}),
    }
    return {
        'format': FORMAT,
        'name': name,
        'config': source,
        'checkpoint': {'name': checkpoint.name, 'sha256': file_sha256(checkpoint)},
        'seed': sweep.seed,
        'recipe_version': sweep.recipe_version,
        'data': {
            'type': dataset.type,
            'root': str(dataset.get('data_root') or ''),
            'img_path': str(dataset.data_prefix.img_path),
            'img_suffix': dataset.img_suffix,
            'images': len(built),
            'limited': dataset.get('indices') is not None,
            'sha256': files_sha256(files),
            'classes': list(built.metainfo['classes']),
        },
        'settings': with_hashes(settings),
    }


def with_hashes(value: Any, key: str = '') -> Any:
    """Returns a copy of a config in which paths of weight files are replaced by hashes of their contents."""
    if isinstance(value, dict):
        return {name: with_hashes(part, name) for name, part in value.items()}
    if key == 'base' and value and isinstance(value, (str, list, tuple)):
        return content_hash(find_base(value))
    if isinstance(value, (list, tuple)):
        return [with_hashes(part) for part in value]
    if key in WEIGHTS and isinstance(value, str) and Path(value).exists():
        return content_hash(Path(value))
    return value
