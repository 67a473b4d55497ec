"""A compared system, which is one row of the tables, and the data sets on which systems are compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path('experiments')
SEEDS = (0, 1, 2)
FIRST = ('scenes', 'camvid')
"""The first data sets, whose records have no pixel counts."""
CAMVID_FOLDS = ('camvid_fold0', 'camvid_fold1', 'camvid_fold2')
SCENES2 = ('scenes2',)
SECOND = (*SCENES2, *CAMVID_FOLDS)
"""The data sets with learning rates per system, see `rates.py`."""
SETTINGS = {
    'scenes': 'scenes, 128x128',
    'camvid': 'CamVid at half size, 240x180',
    'scenes2': 'scenes, 128x128, 500 validation images',
    **{name: f'CamVid at half size, fold {number + 1} of 3 by time' for number, name in enumerate(CAMVID_FOLDS)},
}
"""The data sets: name and title."""
CONFIGS = dict.fromkeys(CAMVID_FOLDS, 'camvid_folds')
"""Folder of the configs of a data set, if it is not the name of the data set."""
FEW = (25, 100)
"""Numbers of labelled images of the rows with few labels."""
RECIPE_VERSION = 2
"""Version of the degradation recipe of the data, configs and records of a setting that `FIRST_VERSION` lacks."""
FIRST_VERSION = {'scenes': 1, 'camvid': 1}
"""Recipe version of the first two settings."""
PARTS = ('train', 'val', 'test')
MAIN, ABLATION, BOUND, CAUSE, RESTORER = 'main', 'ablation', 'upper bound', 'cause', 'restorer'


@dataclass(frozen=True)
class System:
    """System that is trained and tested, which is one row of the tables.

    Attributes:
        name: name in commands, folders and records.
        title: title in the tables.
        group: section of the tables.
        config: stem of the config file; the name of the system by default.
        overrides: config values by dotted key. `{setting}` and `{seed}` in a string stand for the
            name of the data set and the seed.
        restorer: the restorer whose adapter is used.
        trained_as: the system whose checkpoint is tested instead of training a new one.
        settings: the data sets of the system.
        rate_of: the system whose learning rate is used; by default its own one.
        starts_from: the system whose checkpoint provides the initial weights.
    """

    name: str
    title: str
    group: str = MAIN
    config: str = ''
    overrides: Mapping[str, Any] = field(default_factory=dict, hash=False)
    restorer: str | None = None
    trained_as: str | None = None
    settings: tuple[str, ...] = FIRST
    rate_of: str = ''
    starts_from: str | None = None

    @property
    def restores(self) -> bool:
        """Whether the system is a restorer rather than a segmentor."""
        return self.group == RESTORER

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the systems that must run before this one."""
        return tuple(name for name in (self.restorer, self.trained_as, self.starts_from) if name)

    def config_file(self, setting: str) -> str:
        """Returns the path of the config, relative to the root of the checkout."""
        return (ROOT / 'configs' / CONFIGS.get(setting, setting) / f'{self.config or self.name}.py').as_posix()

    def overrides_on(self, setting: str, seed: int) -> dict[str, Any]:
        """Returns the config overrides on one data set and with one seed."""
        overrides = {**(self._fold() if setting in CAMVID_FOLDS else {}), **self.overrides}
        return {key: _filled_in(value, {'setting': setting, 'seed': seed}) for key, value in overrides.items()}

    def _fold(self) -> dict[str, Any]:
        """Returns the overrides that select the data and the base of a fold."""
        roots = {f'{part}_dataloader.dataset.data_root': 'data/experiments/{setting}' for part in PARTS}
        place = {'base': 'model.backbone.base', 'scr': 'model.base', 'r2s': 'model.restorer.base'}
        config = self.config or self.name
        return {**roots, **({place[config]: ['bases/experiments/{setting}']} if config in place else {})}


def _filled_in(value: Any, names: dict[str, Any]) -> Any:
    """Replaces the names in braces in a string, or in the strings of a list."""
    if isinstance(value, str):
        return value.format_map(names)
    return [_filled_in(part, names) for part in value] if isinstance(value, list) else value


def recipe_version(setting: str) -> int:
    """Returns the version of the degradation recipe of the data, configs and records of a setting."""
    return FIRST_VERSION.get(setting, RECIPE_VERSION)
