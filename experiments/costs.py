"""Training costs of the systems: trained parameters and TFLOP, measured on one training step.

A multiply-add counts as two operations. Only matrix products and convolutions are counted, forward and backward, as
`torch.utils.flop_counter` does. Validation, and the encoding of images before the UNet of a base is trained, are not
counted.
"""

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from mmengine.runner import Runner
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from experiments.commands import Run
from experiments.prepare import bases
from experiments.rates import rated_as
from experiments.system import CAMVID_FOLDS, CONFIGS, ROOT, SECOND, System
from experiments.systems import systems_of
from rass_mm.apis import prepare_config
from rass_mm.config import load_config
from rass_mm.demo.base.recipe import BaseRecipe
from rass_mm.demo.base.training import make_base
from rass_mm.diffusion.base import SMALL_BASE
from rass_mm.files.atomic import write_text

FILE = ROOT / 'results' / 'costs.json'
TERA = 1e12
Costs = dict[str, Any]


def read_costs() -> Costs:
    """Reads `costs.json`: the cost of a step by folder of configs and system, and that of a step of a base."""
    return json.loads(FILE.read_text()) if FILE.is_file() else {}


def cost_of(run: Run) -> dict[str, float | None]:
    """Returns the trained parameters and the training cost of a run in TFLOP; None for costs that were not measured.

    `training_tflop` is the cost of the system's own training, `restorer_tflop` that of its SCR, and `base_tflop` that
    of its base. A system without a restorer or base has a cost of 0 for them.
    """
    costs, setting = read_costs(), run.setting
    known = costs.get(CONFIGS.get(setting, setting), {})
    names = {system.name: system for system in systems_of(setting)}
    trained = names[run.system.trained_as] if run.system.trained_as else run.system
    own = _training_cost(run, trained, known)
    restorer = run.system.restorer and _training_cost(run, names[run.system.restorer], known)['tflop']
    uses_base = run.system.restores or run.system.restorer or 'base' in run.resolved().model.get('backbone', {})
    base = base_tflop(setting, _base_of(run), costs) if uses_base and setting in SECOND else None
    return {
        'trained_parameters': own['trained_parameters'],
        'training_tflop': own['tflop'],
        'restorer_tflop': restorer if run.system.restorer else 0.0,
        'base_tflop': base if uses_base else 0.0,
    }


def _training_cost(run: Run, system: System, known: Costs) -> dict[str, Any]:
    found = known.get(rated_as(system))
    if found is None:
        return {'trained_parameters': None, 'tflop': None}
    steps = Run(run.setting, system, run.seed).steps
    return {'trained_parameters': found['trained_parameters'], 'tflop': round(found['tflop_per_step'] * steps, 3)}


def _base_of(run: Run) -> str:
    """Returns the name of the base of a run in `prepare.bases`; the shipped base is `scenes`."""
    model = run.resolved().model
    sources = (model.get('base') or model.get('backbone', {}).get('base') or model.get('restorer', {}).get('base'))[0]
    return Path(sources).name


def base_tflop(setting: str, name: str, costs: Costs) -> float | None:
    """Returns the cost of the training of a base and of those from which it starts; None if it was not measured."""
    if 'base' not in costs:
        return None
    vae, unet = base_steps(setting, name)
    return round(vae * costs['base']['vae_tflop_per_step'] + unet * costs['base']['unet_tflop_per_step'], 3)


def base_steps(setting: str, name: str) -> tuple[int, int]:
    """Returns the training steps of the autoencoder and the UNet of a base, with those of the bases it starts from."""
    options = {**bases('scenes'), **bases(setting)}[name]
    steps = [
        int(options[options.index(flag) + 1]) if flag in options else default
        for flag, default in (('--vae-steps', BaseRecipe().vae_steps), ('--unet-steps', BaseRecipe().unet_steps))
    ]
    start = options[options.index('--start') + 1] if '--start' in options else None
    if start:
        before = base_steps(setting, 'scenes' if start == str(SMALL_BASE) else Path(start).name)
        steps = [mine + theirs for mine, theirs in zip(steps, before, strict=True)]
    return steps[0], steps[1]


def measure_costs() -> None:
    """Measures the cost of a step of all systems of the second data sets and of a base, and writes `costs.json`.

    The data must be prepared. The folds of CamVid have equal costs; the first one is measured.
    """
    found: Costs = {'base': _base_step()}
    for setting in (name for name in SECOND if name not in CAMVID_FOLDS[1:]):
        rated = [system for system in systems_of(setting) if rated_as(system) == system.name]
        steps = {system.name: measure_step(Run(setting, system, 0)) for system in rated}
        found[CONFIGS.get(setting, setting)] = steps
    write_text(FILE, json.dumps(found, indent=1) + '\n')


def measure_step(run: Run) -> dict[str, float]:
    """Measures the number of trained parameters and the cost of a training step of a system, without its restorer.

    A merged restorer and another base of the same layout change weights, but not the cost of a step.
    """
    overrides = {key: [str(SMALL_BASE)] if key.endswith('.base') else value for key, value in run.overrides.items()}
    overrides |= {'model.backbone.scr_adapter': None} if run.system.restorer else {}
    with tempfile.TemporaryDirectory() as folder:
        config = prepare_config(load_config(run.config, overrides), work_dir=folder)
        config.visualizer = {'type': 'Visualizer', 'name': folder}  # not the one of the system measured before
        runner = Runner.from_cfg(config)
        batch = next(iter(runner.build_dataloader(config.train_dataloader, seed=0)))
        optimizer = runner.build_optim_wrapper(config.optim_wrapper)
        runner.model.train()
        with _counted() as counter:
            runner.model.train_step(batch, optimizer)
    trained = sum(parameter.numel() for parameter in runner.model.parameters() if parameter.requires_grad)
    return {'trained_parameters': trained, 'tflop_per_step': counter.get_total_flops() / TERA}


def _base_step() -> dict[str, float]:
    """Returns the cost of a step of both parts of a base: the difference between trainings of two steps and of one."""
    vae = _base_training(2, 0) - _base_training(1, 0)
    unet = _base_training(0, 2) - _base_training(0, 1)
    return {'vae_tflop_per_step': vae / TERA, 'unet_tflop_per_step': unet / TERA}


def _base_training(vae_steps: int, unet_steps: int) -> int:
    recipe = BaseRecipe(scenes=16, vae_steps=vae_steps, unet_steps=unet_steps)
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, RASS_MM_CACHE=folder), _counted() as counter:
        make_base(Path(folder) / 'base', recipe)
    return counter.get_total_flops()


def _convolution_backward(
    grad_shape: Sequence[int], x_shape: Sequence[int], w_shape: Sequence[int], *arguments: Any, **_: Any
) -> int:
    """Returns the operations of the backward pass of a convolution: each gradient costs as much as the forward pass.

    The counter's own formula ignores groups, which makes a depthwise convolution as expensive as a full one.
    """
    transposed, mask = arguments[4], arguments[7]
    pixels = math.prod((x_shape if transposed else grad_shape)[2:]) * grad_shape[0]
    return 2 * pixels * math.prod(w_shape) * (mask[0] + mask[1])


class _counted(FlopCounterMode):  # noqa: N801  a context manager
    """Context manager that counts operations, with attention as matrix products, which the counter knows."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward})
        self.attention = sdpa_kernel(SDPBackend.MATH)

    def __enter__(self) -> '_counted':
        self.attention.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        self.attention.__exit__(*error)
        return super().__exit__(*error)
