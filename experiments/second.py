"""Systems of the second data sets: equal cost, few labels, a pretrained trunk, and a base with another seed.

The rows of all data sets are in `systems.py`.
"""

from typing import Any

from experiments.system import ABLATION, CAUSE, FEW, MAIN, RESTORER, SCENES2, System

FT_EQUAL, BASE_EQUAL = 2084, 2044
"""Steps whose training cost in TFLOP is that of `rass` with its restorer, without the base (`costs.json`)."""
FEW_NOTE = 'the base has seen the captions of 4096 other scenes'


def schedule(steps: int, validations: int = 6) -> dict[str, Any]:
    """Returns overrides that train for `steps` iterations, with the end of the decay and the validations."""
    return {
        'max_iters': steps,
        'param_scheduler.1.end': steps,
        'train_cfg.max_iters': steps,
        'train_cfg.val_interval': steps // validations,
    }


def on_base(name: str) -> dict[str, Any]:
    """Returns overrides that select another base for the diffusion backbone."""
    return {'model.backbone.base': [f'bases/experiments/{name}']}


def _few(count: int) -> tuple[System, ...]:
    """Returns the systems that are trained with a few labelled images, a different subset for each seed."""
    images = {'train_dataloader.dataset.ann_file': f'few{count}-seed{{seed}}.txt'}

    def system(name: str, title: str, group: str = MAIN, note: str = '', **options: Any) -> System:
        title = f'{title}, {count} labelled images{note}'
        return System(f'{name}_{count}', title, group, overrides=images, settings=SCENES2, rate_of=name, **options)

    return (
        system('ft', 'FT', config='ft'),
        system('base', 'base without SCR', note=f' ({FEW_NOTE})', config='base'),
        system('scr', 'SCR', RESTORER, note=f' ({FEW_NOTE})', config='scr'),
        system('rass', 'RASS', note=f' ({FEW_NOTE})', config='base', restorer=f'scr_{count}'),
    )


GROUP_NORM = {'model.backbone.norm_cfg.type': 'GN', 'model.backbone.norm_cfg.num_groups': 8}
OTHER_SEED = on_base('scenes-b1')


def _at(timestep: int) -> tuple[System, ...]:
    """Returns the systems whose UNet is called with another timestep."""
    common: dict[str, Any] = {'config': 'base', 'overrides': {'model.backbone.timestep': timestep}, 'settings': SCENES2}
    return (
        System(f'base_t{timestep}', f'base without SCR, timestep {timestep}', CAUSE, rate_of='base', **common),
        System(f'rass_t{timestep}', f'RASS, timestep {timestep}', CAUSE, rate_of='rass', restorer='scr', **common),
    )


SECOND_SYSTEMS = (
    System(
        'base_equal',
        'base without SCR, total cost of RASS and SCR',
        config='base',
        overrides=schedule(BASE_EQUAL, validations=4),
        settings=SCENES2,
        rate_of='base',
    ),
    System(
        'ft_equal',
        'FT, total cost of RASS and SCR (without the base)',
        config='ft',
        overrides=schedule(FT_EQUAL, validations=4),
        settings=SCENES2,
        rate_of='ft',
    ),
    *(system for count in FEW for system in _few(count)),
    System('lite_dt', 'DT: EfficientNet-Lite0, pretrained on ImageNet', settings=SCENES2),
    System('lite_ft', 'FT: EfficientNet-Lite0, pretrained on ImageNet', settings=SCENES2),
    System(
        'lite_r2s',
        'R2S: SCR, then DT with EfficientNet-Lite0',
        restorer='scr',
        trained_as='lite_dt',
        settings=SCENES2,
    ),
    System(
        'base_b1',
        'base of another seed, without SCR',
        ABLATION,
        config='base',
        overrides=OTHER_SEED,
        settings=SCENES2,
        rate_of='base',
    ),
    System(
        'scr_b1',
        'SCR on the base of another seed',
        RESTORER,
        config='scr',
        overrides={'model.base': OTHER_SEED['model.backbone.base']},
        settings=SCENES2,
        rate_of='scr',
    ),
    System(
        'rass_b1',
        'RASS on the base of another seed',
        ABLATION,
        config='base',
        overrides=OTHER_SEED,
        restorer='scr_b1',
        settings=SCENES2,
        rate_of='rass',
    ),
    System('ft_from_dt', 'FT, started from DT', CAUSE, config='ft', settings=SCENES2, rate_of='ft', starts_from='dt'),
    System('dt_gn', 'DT, group norm', CAUSE, config='dt', overrides=GROUP_NORM, settings=SCENES2),
    System('ft_gn', 'FT, group norm', CAUSE, config='ft', overrides=GROUP_NORM, settings=SCENES2),
    *_at(200),
    *_at(273),
    System('ft_twins', 'FT, clean and degraded twins', CAUSE, settings=SCENES2, rate_of='ft'),
    System('rass_twins', 'RASS, clean and degraded twins', CAUSE, restorer='scr', settings=SCENES2, rate_of='rass'),
    System('rass_mid', 'RASS, all severities', CAUSE, restorer='scr', settings=SCENES2, rate_of='rass'),
)
