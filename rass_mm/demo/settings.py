"""Settings of a demo, and a check that the output folder was made with the same settings."""

import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rass_mm.demo.base.shipped import shipped_record
from rass_mm.errors import ConfigError
from rass_mm.files.atomic import write_text
from rass_mm.files.locks import LOCK
from rass_mm.files.schemas import read_json

PROCEDURE = 2
"""Version of the demo. Increase it if results in older folders are no longer comparable."""
SETTINGS = 'demo.json'
"""File in the demo's folder that records the settings of its results."""


@dataclass(frozen=True)
class DemoSettings:
    """Settings that determine the results of a demo.

    Args:
        seed: seed of the training runs; scenes and degradations always use seed 0.
        restorer_steps: number of training steps of SCR.
        segmentor_steps: number of training steps of each segmentor.
        train: number of training scenes.
        val: number of validation scenes.
        longer_steps: number of training steps of the second, longer training run of the ResNet.
        base: hash of the weights of the small base.
    """

    seed: int = 0
    restorer_steps: int = 300
    segmentor_steps: int = 500
    train: int = 400
    val: int = 100
    longer_steps: int = 3000
    base: str = field(default_factory=lambda: shipped_record()['weights'])

    @property
    def record(self) -> dict[str, Any]:
        """Content of `demo.json`: the settings and the version of the demo."""
        return {'procedure': PROCEDURE, **asdict(self)}


def claim_folder(out: Path, settings: DemoSettings) -> None:
    """Writes the settings to a new folder, or checks that an existing demo folder has the same settings.

    Raises:
        ConfigError: the folder contains a demo with other settings, a damaged settings file, or unrelated files.
    """
    file = out / SETTINGS
    if not file.is_file():
        if out.is_dir() and any(path.name != LOCK for path in out.iterdir()):
            raise ConfigError(
                f'{out} is not empty and has no {SETTINGS}. It is not the folder of a demo, or was made by an earlier '
                'version. Choose another folder with --out DIR.'
            )
        write_text(file, json.dumps(settings.record, indent=2) + '\n')
        return
    found = read_settings(file)
    differing = [
        f'{key} is {found.get(key)}, not {value}' for key, value in settings.record.items() if found.get(key) != value
    ]
    if differing:
        raise ConfigError(
            f'{out} contains a demo with other settings: {"; ".join(differing)}. '
            f'Choose another folder with --out DIR, or remove this one: rm -r {shlex.quote(str(out))}'
        )


def read_settings(file: Path) -> dict[str, Any]:
    """Reads the record of a demo's settings.

    Raises:
        ConfigError: the file is damaged, or contains something else.
    """
    fix = 'Choose another folder with --out DIR.'
    found = read_json(file, dict[str, Any], fix, ConfigError)
    if 'procedure' not in found:
        raise ConfigError(f'{file} does not contain the settings of a demo. Choose another folder with --out DIR.')
    return found
