"""Trained models in the folder of a demo."""

from dataclasses import dataclass, fields
from pathlib import Path

from rass_mm.demo.base.shipped import shipped_base
from rass_mm.demo.settings import SETTINGS, DemoSettings, read_settings
from rass_mm.demo.steps import ADAPTER, BASELINE, RASS_SCR, SCR, checkpoint
from rass_mm.errors import ConfigError

MAKE = 'Run `make demo` (or rass-mm demo), or pass your own models with --adapter, --base and --checkpoint.'


@dataclass(frozen=True)
class TrainedModels:
    """Files of the models that a demo has trained.

    Attributes:
        adapter: adapter file of the restorer.
        base: the base folder.
        checkpoint: checkpoint of RASS with SCR.
        baseline: checkpoint of the ResNet that was trained for as many steps.
    """

    adapter: Path
    base: Path
    checkpoint: Path
    baseline: Path


def trained_models(out: Path) -> TrainedModels:
    """Returns the trained models of a demo.

    Args:
        out: the folder of the demo.

    Raises:
        ConfigError: the folder is not that of a demo, or a model is not trained yet.
    """
    out = out.resolve()
    if not (out / SETTINGS).is_file():
        raise ConfigError(f'There is no demo in {out}. {MAKE}')
    record = read_settings(out / SETTINGS)
    known = {field.name: record[field.name] for field in fields(DemoSettings) if field.name in record}
    if any(name.endswith('_steps') and type(value) is not int for name, value in known.items()):
        raise ConfigError(f'{out / SETTINGS}: the numbers of steps must be integers. {MAKE}')
    settings = DemoSettings(**known)
    adapter = out / SCR.stem / ADAPTER
    models = TrainedModels(
        adapter, shipped_base(), checkpoint(out, settings, RASS_SCR), checkpoint(out, settings, BASELINE)
    )
    missing = [path for path in (models.adapter, models.checkpoint, models.baseline) if not path.is_file()]
    if missing:
        raise ConfigError(f'The demo in {out} is not finished: {missing[0]} does not exist. {MAKE}')
    return models
