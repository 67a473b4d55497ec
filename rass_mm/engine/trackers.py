"""Experiment trackers of a training, which the config names with the key `trackers`."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from rass_mm.config.kinds import as_list, type_name
from rass_mm.config.names import suggestion
from rass_mm.errors import ConfigError, InstallationError

Settings = dict[str, Any]


_given: dict[str, str] = {}
"""Environment variables that this module has set, which a later training in this process may replace."""


def _set(name: str, value: str | None) -> None:
    """Sets an environment variable, or removes it for None, unless the user has set it."""
    if os.environ.get(name) not in (None, '', _given.get(name)):
        return
    os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = _given[name] = value


def _wandb(work_dir: Path) -> Settings:
    """Settings of Weights & Biases, which is offline unless WANDB_MODE says otherwise."""
    mode = os.environ.get('WANDB_MODE') or 'offline'
    folder = str(work_dir.resolve() / 'wandb')
    for name in ('WANDB_CACHE_DIR', 'WANDB_DATA_DIR'):  # by default in the home folder
        _set(name, folder)
    _set('WANDB_CONFIG_DIR', folder if mode == 'offline' else None)
    _set('WANDB_DISABLE_GIT', 'true')  # it would store the changes since the commit of the remote branch
    return {'init_kwargs': {'mode': mode, 'project': 'rass_mm', 'name': work_dir.name, 'save_code': False}}


def _mlflow(work_dir: Path) -> Settings:
    """Settings of MLflow, which writes files unless MLFLOW_TRACKING_URI names a server."""
    _set('MLFLOW_DISABLE_TELEMETRY', 'true')
    address = os.environ.get('MLFLOW_TRACKING_URI')
    if not address:
        _set('MLFLOW_ALLOW_FILE_STORE', 'true')  # MLflow 3 refuses files otherwise
    return {'exp_name': work_dir.name, **({'tracking_uri': address} if address else {})}


@dataclass(frozen=True)
class Tracker:
    """One tracker.

    Args:
        backend: name of the visualization backend.
        replaced: name of mmengine's backend for the same package, which is not used beside it.
        settings: function of the work folder that returns the settings of the backend.
    """

    backend: str
    replaced: str
    settings: Callable[[Path], Settings] = lambda work_dir: {}


TRACKERS = {
    'tensorboard': Tracker('TensorboardVisBackend', 'TensorboardVisBackend'),
    'wandb': Tracker('WandbRunBackend', 'WandbVisBackend', _wandb),
    'mlflow': Tracker('MLflowRunBackend', 'MLflowVisBackend', _mlflow),
}
"""Name of a tracker, which is also that of its package -> its backend."""
HOOKS = {False: 'PredictionImagesHook', True: 'mmagic.RestorationImagesHook'}
"""Whether the model is a restorer -> hook that draws pictures in validations."""


def use_trackers(config: Config) -> None:
    """Adds the trackers that a config names in `trackers` to its visualizer, and a hook for pictures, in place.

    They replace backends of the same packages, which the config of an earlier training has with the settings of that
    training.

    Args:
        config: the config of a training, with a work folder.

    Raises:
        ConfigError: a tracker is unknown.
        InstallationError: the package of a tracker is not installed.
    """
    names = as_list(config.get('trackers'))
    if not names:
        return
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f'trackers has {name!r}, which is not a known tracker. {suggestion(name, TRACKERS)}')
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # None is a folder without Python files, e.g. one that a tracker wrote
            raise InstallationError(f'trackers has {name!r}, which is not installed. Run: pip install {name}')
    drop_trackers(config)
    visualizer = config.get('visualizer') or {'type': 'mmseg.SegLocalVisualizer', 'name': 'visualizer'}
    backends = [dict(part) for part in as_list(visualizer.get('vis_backends', {'type': 'LocalVisBackend'}))]
    for name in dict.fromkeys(names):
        backends.append({'type': TRACKERS[name].backend, **TRACKERS[name].settings(Path(config.work_dir))})
    config.visualizer = {**visualizer, 'vis_backends': backends}
    hook = HOOKS[type_name(config.model) == 'SCRRestorer']
    hooks = [dict(part) for part in as_list(config.get('custom_hooks'))]
    if hook.rpartition('.')[2] not in {type_name(part) for part in hooks}:
        config.custom_hooks = [*hooks, {'type': hook}]


def drop_trackers(config: Config) -> None:
    """Removes the backends of the trackers that a config names in `trackers` from its visualizer, in place.

    The config that a training writes to its work folder has them. Tests use it, and do not write to trackers.
    """
    used = [TRACKERS[name] for name in as_list(config.get('trackers')) if name in TRACKERS]
    visualizer = config.get('visualizer') or {}
    if not used or visualizer.get('vis_backends') is None:
        return
    names = {name for tracker in used for name in (tracker.backend, tracker.replaced)}
    backends = [dict(part) for part in as_list(visualizer['vis_backends']) if type_name(part) not in names]
    config.visualizer = {**visualizer, 'vis_backends': backends}
