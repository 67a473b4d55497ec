"""Search for the learning rate of a system: short runs on one part of the training images, scored on the other part.

Every system has the same budget. Validation images take no part in the search. The rows that differ from another row in
their images, steps, timestep or base use its rate (`System.rate_of`).
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.commands import ADAPTER, WORK, Run, option, typed
from experiments.locks import locked
from experiments.prepare import DATA, RATES_HELD_OUT, RATES_TRAINING
from experiments.rates import RATES, add_rate, chosen_rate, rate_key, rated_as, read_rates
from experiments.record import curve_of, revision
from experiments.second import schedule
from experiments.systems import SECOND, systems_of
from rass_mm.degradation.versions import lq_steps

STEPS, SEED = 300, 0
Call = Callable[[list[str], Path], None]


@dataclass(frozen=True)
class Trial:
    """Training of a system with one candidate.

    Attributes:
        run: the run of the system with the seed of the search.
        rate: the learning rate.
    """

    run: Run
    rate: float

    @property
    def folder(self) -> Path:
        """Work folder."""
        return folder_of(self.run, self.run.system.name, self.rate)

    @property
    def overrides(self) -> dict[str, Any]:
        """Overrides of the run with the short schedule and the two parts of the training images."""
        run = self.run
        # Systems trained on clean images know only these, so that their rate is chosen on clean images.
        image_folder = 'img_lq/train' if any(lq_steps(run.resolved().train_dataloader)) else 'img_dir/train'
        held_out = 'val_dataloader.dataset'
        overrides = {
            **run.overrides,
            **schedule(STEPS, validations=1),
            rate_key(run.system): self.rate,
            'train_dataloader.dataset.ann_file': RATES_TRAINING,
            f'{held_out}.ann_file': RATES_HELD_OUT,
            f'{held_out}.data_prefix.img_path': image_folder,
            f'{held_out}.data_prefix.seg_map_path': 'ann_dir/train',
            f'{held_out}.img_suffix': '.png',
            f'{held_out}.indices': None,
        }
        if run.system.restorer:
            (restorer,) = (s for s in systems_of(run.setting) if s.name == run.system.restorer)
            best = folder_of(run, restorer.name, chosen_rate(run.setting, restorer))
            overrides['model.backbone.scr_adapter'] = (best / ADAPTER).as_posix()
        return overrides

    @property
    def training(self) -> list[str]:
        """Command line of `tools/train.py`."""
        place = ['--work-dir', self.folder.as_posix(), '--resume']
        options = [option(key, value) for key, value in self.overrides.items()]
        return ['tools/train.py', self.run.config, *place, '--cfg-options', *options]

    def record(self) -> dict[str, Any]:
        """Collects the record after the training."""
        names = (DATA / self.run.setting / RATES_HELD_OUT).read_text().split()
        curve, score = curve_of(self.folder, self.run.system.restores)
        return {
            'setting': self.run.setting,
            'system': self.run.system.name,
            'rate': self.rate,
            'steps': STEPS,
            'seed': SEED,
            'held_out': len(names),
            'metric': score,
            'score': curve[STEPS],
            'command': typed(self.training),
            'revision': revision(),
        }


def folder_of(run: Run, name: str, rate: float | None) -> Path:
    """Returns the work folder of a candidate of a system."""
    return WORK / run.setting / 'rates' / f'{name}-{rate}'


def search_rate(run: Run, call: Call) -> None:
    """Searches the rate of a run unless it is known, after that of its restorer.

    Args:
        run: a run of any data set; nothing is done on the first ones.
        call: runs a command and writes its output to a file.
    """
    if run.setting not in SECOND or (name := rated_as(run.system)) is None:
        return
    (system,) = (s for s in systems_of(run.setting) if s.name == name)
    rated = Run(run.setting, system, SEED)
    for need in (s for s in systems_of(run.setting) if s.name == system.restorer):
        search_rate(Run(run.setting, need, SEED), call)
    with locked(WORK / run.setting / 'rates' / system.name):
        for rate in RATES:
            if rate not in read_rates(run.setting).get(system.name, {}):
                _try(Trial(rated, rate), call)
        if system.restores:  # the systems that use it search with the adapter of its best candidate
            _keep_adapters(rated, call)


def _try(trial: Trial, call: Call) -> None:
    call(trial.training, trial.folder / 'train.log')
    add_rate(trial.record())
    _drop_checkpoints(trial)


def _drop_checkpoints(trial: Trial) -> None:
    for file in trial.folder.glob('*.pth'):
        file.unlink()


def _keep_adapters(rated: Run, call: Call) -> None:
    """Trains the best candidate of a restorer again if its adapter is missing, as in a fresh clone."""
    best = Trial(rated, chosen_rate(rated.setting, rated.system))
    if not (best.folder / ADAPTER).is_file():
        shutil.rmtree(best.folder, ignore_errors=True)
        call(best.training, best.folder / 'train.log')
    _drop_checkpoints(best)
