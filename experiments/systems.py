"""Compared systems of the first two data sets, and of the others from `second.py`, in the order in which they run.

A system consists of a config of `configs/<setting>/`, overrides of its values, and the names of other systems whose
results it uses with the same seed. To add a row to the tables, add a system here or in `second.py`.
"""

from experiments.second import GROUP_NORM, SECOND_SYSTEMS, on_base, schedule
from experiments.system import (
    ABLATION,
    BOUND,
    CAMVID_FOLDS,
    CAUSE,
    FIRST,
    MAIN,
    RECIPE_VERSION,
    RESTORER,
    ROOT,
    SECOND,
    SEEDS,
    SETTINGS,
    System,
    recipe_version,
)
from rass_mm.errors import ConfigError

__all__ = [
    'ABLATION',
    'BOUND',
    'CAMVID_FOLDS',
    'CAUSE',
    'FIRST',
    'MAIN',
    'RECIPE_VERSION',
    'RESTORER',
    'ROOT',
    'SECOND',
    'SEEDS',
    'SETTINGS',
    'SYSTEMS',
    'System',
    'recipe_version',
    'systems_of',
]

LONG, LONGER, EQUAL = schedule(3600), schedule(10800), schedule(1900, validations=4)
NO_CONSTRAINT, FULL_CONSTRAINT = ({'model.losses.constraint.loss_weight': weight} for weight in (0.0, 1.0))
ALL_OF_UNET = {'model.backbone.train_parameters': 'unet'}
SLOW = {'optim_wrapper.optimizer.lr': 3e-4}
EMPTY_PROMPTS = {'model.prompt.type': 'EmptyPrompt'}
TRUE_TAGS = {'model.prompt.type': 'TagPrompt', 'model.prompt.tagger.type': 'GroundTruthTagger'}
SHORT, RANDOM = on_base('{setting}-short'), {**on_base('{setting}-random'), **ALL_OF_UNET}
TIMESTEP_200 = {'model.backbone.timestep': 200}
UNET_FEATURES = {'model.backbone.features': ['unet.mid_block', *(f'unet.up_blocks.{i}' for i in range(4))]}
MORE_IMAGES = {'train_dataloader.dataset.indices': 2000}
_CROP = (128, 128)
CROP_128 = {
    'crop_size': _CROP,
    'train_pipeline.4.crop_size': _CROP,
    'train_dataloader.dataset.pipeline.4.crop_size': _CROP,
    'model.data_preprocessor.size': _CROP,
}
SCENES, CAMVID, EVERYWHERE = ('scenes',), ('camvid',), (*FIRST, *SECOND)

SYSTEMS = (
    System('dt', 'DT: ResNet, trained clean', settings=EVERYWHERE),
    System('ft', 'FT: ResNet, trained degraded', settings=EVERYWHERE),
    System('base', 'diffusion, base without SCR', settings=EVERYWHERE),
    System('scr', 'SCR, lambda 0.1', RESTORER, settings=EVERYWHERE),
    System('rass', 'RASS: SCR merged, lambda 0.1', config='base', restorer='scr', settings=EVERYWHERE),
    System('r2s', 'R2S: SCR, then DT', restorer='scr', trained_as='dt', settings=EVERYWHERE),
    System('scr_l0', 'SCR, lambda 0', RESTORER, config='scr', overrides=NO_CONSTRAINT),
    System('rass_l0', 'SCR merged, lambda 0', config='base', restorer='scr_l0'),
    System('random', 'diffusion, random UNet, all trained', config='base', overrides=RANDOM),
    System(
        'rass_full', 'RASS, all of the UNet trained', ABLATION, config='base', overrides=ALL_OF_UNET, restorer='scr'
    ),
    System('rass_empty', 'RASS, empty prompts', ABLATION, config='base', overrides=EMPTY_PROMPTS, restorer='scr'),
    System(
        'rass_noshortcut',
        "RASS without the encoder's features",
        ABLATION,
        config='base',
        overrides=UNET_FEATURES,
        restorer='scr',
    ),
    System('rass_clean', 'RASS trained clean', ABLATION, config='base_clean', restorer='scr'),
    System('rass_tags', 'RASS, ground-truth tags', BOUND, config='base', overrides=TRUE_TAGS, restorer='scr'),
    System('dt_long', 'DT, 3600 steps', CAUSE, config='dt', overrides=LONG),
    System('ft_long', 'FT, 3600 steps', CAUSE, config='ft', overrides=LONG),
    System('base_long', 'base without SCR, 3600 steps', CAUSE, config='base', overrides=LONG),
    System('rass_long', 'RASS, 3600 steps', CAUSE, config='base', overrides=LONG, restorer='scr'),
    System(
        'r2s_long',
        'R2S: SCR, then DT of 3600 steps',
        CAUSE,
        config='r2s',
        overrides={'train_cfg.max_iters': 3600},  # determines which checkpoint is tested
        restorer='scr',
        trained_as='dt_long',
    ),
    System('ft_longer', 'FT, 10800 steps', CAUSE, config='ft', overrides=LONGER, settings=SCENES),
    System('base_longer', 'base without SCR, 10800 steps', CAUSE, config='base', overrides=LONGER, settings=SCENES),
    System('rass_longer', 'RASS, 10800 steps', CAUSE, config='base', overrides=LONGER, restorer='scr', settings=SCENES),
    System('base_equal', "base without SCR, longer by SCR's cost", CAUSE, config='base', overrides=EQUAL),
    System(
        'base_noshortcut',
        "base without SCR and without the encoder's features",
        CAUSE,
        config='base',
        overrides=UNET_FEATURES,
    ),
    System('base_short', 'base of 300 steps, without SCR', CAUSE, config='base', overrides=SHORT),
    System(
        'scr_short',
        'SCR on the base of 300 steps',
        RESTORER,
        config='scr',
        overrides={'model.base': ['bases/experiments/{setting}-short']},
    ),
    System('rass_short', 'RASS on the base of 300 steps', CAUSE, config='base', overrides=SHORT, restorer='scr_short'),
    System('scr_l1', 'SCR, lambda 1', RESTORER, config='scr', overrides=FULL_CONSTRAINT),
    System('rass_l1', 'SCR merged, lambda 1', CAUSE, config='base', restorer='scr_l1'),
    System('base_t200', 'base without SCR, timestep 200', CAUSE, config='base', overrides=TIMESTEP_200),
    System('rass_t200', 'RASS, timestep 200', CAUSE, config='base', overrides=TIMESTEP_200, restorer='scr'),
    System(
        'rass_full_slow',
        'RASS, all of the UNet trained, rate 3e-4',
        CAUSE,
        config='base',
        overrides={**ALL_OF_UNET, **SLOW},
        restorer='scr',
    ),
    System('ft_more', 'FT, 2000 labelled images', CAUSE, config='ft', overrides=MORE_IMAGES, settings=SCENES),
    System(
        'base_more',
        'base without SCR, 2000 labelled images',
        CAUSE,
        config='base',
        overrides=MORE_IMAGES,
        settings=SCENES,
    ),
    System(
        'rass_more',
        'RASS, 2000 labelled images',
        CAUSE,
        config='base',
        overrides=MORE_IMAGES,
        restorer='scr',
        settings=SCENES,
    ),
    System('dt_crop', 'DT, crops of 128x128', CAUSE, config='dt', overrides=CROP_128, settings=CAMVID),
    System('ft_crop', 'FT, crops of 128x128', CAUSE, config='ft', overrides=CROP_128, settings=CAMVID),
    System('dt_gn', 'DT, group norm', CAUSE, config='dt', overrides=GROUP_NORM, settings=CAMVID),
    System('ft_gn', 'FT, group norm', CAUSE, config='ft', overrides=GROUP_NORM, settings=CAMVID),
    System('dt_photo', 'DT, photometric distortion', CAUSE, settings=CAMVID),
    System('ft_photo', 'FT, photometric distortion', CAUSE, settings=CAMVID),
    System('base_photo', 'base without SCR, photometric distortion', CAUSE, settings=CAMVID),
    System('rass_photo', 'RASS, photometric distortion', CAUSE, config='base_photo', restorer='scr', settings=CAMVID),
    System(
        'base_scenes',
        'base trained on scenes, without SCR',
        CAUSE,
        config='base',
        overrides=on_base('scenes'),
        settings=CAMVID,
    ),
    System(
        'base_alone',
        'base trained on CamVid only, without SCR',
        CAUSE,
        config='base',
        overrides=on_base('camvid-alone'),
        settings=CAMVID,
    ),
    *SECOND_SYSTEMS,
)


def systems_of(setting: str, names: list[str] | None = None) -> list[System]:
    """Returns all systems of a data set, or the named ones with their dependencies, in the order in which they run.

    Raises:
        ConfigError: a name is unknown.
    """
    there = {system.name: system for system in SYSTEMS if setting in system.settings}
    if not names:
        return list(there.values())
    unknown = [name for name in names if name not in there]
    if unknown:
        raise ConfigError(f'No system {unknown[0]!r} on {setting}. There are: {", ".join(there)}.')
    wanted = set(names)
    for system in reversed(list(there.values())):  # dependencies are listed before the systems that need them
        if system.name in wanted:
            wanted.update(system.needs)
    return [system for system in there.values() if system.name in wanted]
