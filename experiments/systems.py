"""What is compared: the systems, in the order in which they run, and the two data sets they run on.

A system is a config of `configs/<setting>/<name>.py` plus what it takes from other systems of the same seed. Everything
else about it stands in the config. A new row of the tables is a config and a line here.
"""

from dataclasses import dataclass
from pathlib import Path

from rass_mm.errors import ConfigError

ROOT = Path('experiments')
SEEDS = (0, 1, 2)
RECIPE_VERSION = 1
"""Version of the degradation recipe of all data, configs and records here."""
MAIN, ABLATION, BOUND, CAUSE, RESTORER = 'main', 'ablation', 'upper bound', 'cause', 'restorer'


@dataclass(frozen=True)
class System:
    """One row of the tables.

    Attributes:
        name: stem of its config.
        title: its name in tables.
        group: where in the tables it stands.
        restorer: the restorer whose adapter it takes.
        trained_as: the system whose checkpoint it tests instead of training one.
        settings: the data sets it runs on; empty means all.
    """

    name: str
    title: str
    group: str = MAIN
    restorer: str | None = None
    trained_as: str | None = None
    settings: tuple[str, ...] = ()

    @property
    def restores(self) -> bool:
        """Whether it is a restorer and not a segmentor."""
        return self.group == RESTORER

    @property
    def needs(self) -> tuple[str, ...]:
        """The systems that must have run before it."""
        return tuple(name for name in (self.restorer, self.trained_as) if name)

    def config(self, setting: str) -> str:
        """Path of its config from the checkout's root."""
        return (ROOT / 'configs' / setting / f'{self.name}.py').as_posix()


SYSTEMS = (
    System('dt', 'DT: ResNet, trained clean'),
    System('ft', 'FT: ResNet, trained degraded'),
    System('base', 'diffusion, base without SCR'),
    System('scr', 'SCR, lambda 0.1', RESTORER),
    System('rass', 'RASS: SCR merged, lambda 0.1', restorer='scr'),
    System('r2s', 'R2S: SCR, then DT', restorer='scr', trained_as='dt'),
    System('scr_l0', 'SCR, lambda 0', RESTORER),
    System('rass_l0', 'SCR merged, lambda 0', restorer='scr_l0'),
    System('random', 'diffusion, random UNet, all trained'),
    System('rass_full', 'RASS, all of the UNet trained', ABLATION, restorer='scr'),
    System('rass_empty', 'RASS, empty prompts', ABLATION, restorer='scr'),
    System('rass_noshortcut', "RASS without the encoder's features", ABLATION, restorer='scr'),
    System('rass_clean', 'RASS trained clean', ABLATION, restorer='scr'),
    System('rass_tags', 'RASS, ground-truth tags', BOUND, restorer='scr'),
    System('dt_long', 'DT, 3600 steps', CAUSE),
    System('ft_long', 'FT, 3600 steps', CAUSE),
    System('base_long', 'base without SCR, 3600 steps', CAUSE),
    System('rass_long', 'RASS, 3600 steps', CAUSE, restorer='scr'),
    System('r2s_long', 'R2S: SCR, then DT of 3600 steps', CAUSE, restorer='scr', trained_as='dt_long'),
    System('ft_longer', 'FT, 10800 steps', CAUSE, settings=('scenes',)),
    System('base_longer', 'base without SCR, 10800 steps', CAUSE, settings=('scenes',)),
    System('rass_longer', 'RASS, 10800 steps', CAUSE, restorer='scr', settings=('scenes',)),
    System('base_equal', "base without SCR, longer by SCR's cost", CAUSE),
    System('base_short', 'base of 300 steps, without SCR', CAUSE),
    System('scr_short', 'SCR on the base of 300 steps', RESTORER),
    System('rass_short', 'RASS on the base of 300 steps', CAUSE, restorer='scr_short'),
    System('scr_l1', 'SCR, lambda 1', RESTORER),
    System('rass_l1', 'SCR merged, lambda 1', CAUSE, restorer='scr_l1'),
    System('base_t200', 'base without SCR, timestep 200', CAUSE),
    System('rass_t200', 'RASS, timestep 200', CAUSE, restorer='scr'),
    System('rass_full_slow', 'RASS, all of the UNet trained, rate 3e-4', CAUSE, restorer='scr'),
    System('ft_more', 'FT, 2000 labelled images', CAUSE, settings=('scenes',)),
    System('base_more', 'base without SCR, 2000 labelled images', CAUSE, settings=('scenes',)),
    System('rass_more', 'RASS, 2000 labelled images', CAUSE, restorer='scr', settings=('scenes',)),
    System('dt_crop', 'DT, crops of 128x128', CAUSE, settings=('camvid',)),
    System('ft_crop', 'FT, crops of 128x128', CAUSE, settings=('camvid',)),
    System('dt_gn', 'DT, group norm', CAUSE, settings=('camvid',)),
    System('ft_gn', 'FT, group norm', CAUSE, settings=('camvid',)),
    System('dt_photo', 'DT, photometric distortion', CAUSE, settings=('camvid',)),
    System('ft_photo', 'FT, photometric distortion', CAUSE, settings=('camvid',)),
    System('base_photo', 'base without SCR, photometric distortion', CAUSE, settings=('camvid',)),
    System('rass_photo', 'RASS, photometric distortion', CAUSE, restorer='scr', settings=('camvid',)),
    System('base_scenes', 'base trained on scenes, without SCR', CAUSE, settings=('camvid',)),
    System('base_alone', 'base trained on CamVid only, without SCR', CAUSE, settings=('camvid',)),
)
SETTINGS = {'scenes': 'scenes, 128x128', 'camvid': 'CamVid at half size, 240x180'}


def systems_of(setting: str, names: list[str] | None = None) -> list[System]:
    """The systems of a data set, or those named and what they need, in the order in which they run.

    Raises:
        ConfigError: an unknown name.
    """
    there = {system.name: system for system in SYSTEMS if setting in (system.settings or SETTINGS)}
    if not names:
        return list(there.values())
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(f'No system {unknown[0]!r} on {setting}. There are: {", ".join(there)}.')
    wanted = set(names)
    for system in reversed(list(there.values())):  # what a system needs stands before it
        if system.name in wanted:
            wanted.update(system.needs)
    return [system for system in there.values() if system.name in wanted]
