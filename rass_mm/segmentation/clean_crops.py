"""Clean crops in the training pipelines of segmentors with `train_cfg.clean_twins`, see `clean_twins`."""

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmseg.datasets.transforms import PackSegInputs
from mmseg.models.segmentors import EncoderDecoder
from mmseg.registry import MODELS

from rass_mm.config.kinds import as_list, type_name
from rass_mm.config.training import TWINS
from rass_mm.datasets.classes import segmentor_parts
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.errors import ConfigError

CLEAN = 'gt'
"""Key of the clean crop in samples, see `KeepCleanImage`."""
DEGRADATION = 'LQDegradation'
SOURCES = ('KeepCleanImage', 'LoadCleanImage')
"""Steps that add the clean crop."""
NEUTRAL = (
    *('PackSegInputs', 'LoadAnnotations', 'LoadLabelStrict', 'GenerateEdge'),
    *('Compose', 'RandomApply', 'RandomChoice'),  # the steps in them are checked
)
"""Steps that neither move nor change the pixels of `img`, so that the clean crop still matches it and the labels."""
KEY = f'model.train_cfg.{TWINS}'
STEPS = (
    f'{KEY} needs the clean crop of each training image. Place KeepCleanImage directly before LQDegradation in the '
    f"training pipeline, and '{CLEAN}' in the meta_keys of PackSegInputs. In a plain list of steps with LQDegradation "
    'and PackSegInputs, both are added automatically.'
)


def twin_settings(train_cfg: Any) -> Mapping[str, Any] | None:
    """Returns the value of `clean_twins` in the `train_cfg` of a segmentor, or None if it is not set."""
    return train_cfg.get(TWINS) if isinstance(train_cfg, Mapping) else None


def follow_clean_twins(config: dict[str, Any]) -> None:
    """Makes the training pipelines of a config keep the clean crops if `train_cfg.clean_twins` is set, in place.

    Pipelines without `LQDegradation` are not changed. The segmentor of `RestoreThenSegment` may have this setting too;
    its clean twins are not restored.

    Raises:
        ConfigError: the model does not support the setting, or the clean crops of a pipeline would not match the
            degraded ones.
    """
    parts = dict(segmentor_parts(config.get('model')))
    twins = [key for key, part in parts.items() if twin_settings(part.get('train_cfg')) is not None]
    for key in twins:
        _check_model(key, parts[key])
    loader = config.get('train_dataloader')
    for path, dataset in leaf_paths(loader, 'train_dataloader') if twins else ():
        check_steps(_all_steps(loader, path.split('.')[1:]), f'{path}.pipeline')
        steps = dataset.get('pipeline')
        if isinstance(steps, list | tuple) and all(isinstance(step, Mapping) for step in steps):
            dataset['pipeline'] = keeping_clean(steps)


def _check_model(key: str, part: Mapping[str, Any]) -> None:
    kind = part.get('type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if inspect.isclass(kind) and not issubclass(kind, EncoderDecoder):
        inner = f' Set it in {key}.segmentor.train_cfg.' if 'segmentor' in part else ''
        raise ConfigError(
            f'{key}.train_cfg.{TWINS} is set, but {kind.__name__} does not support it. Supported are RASS, and '
            f"mmseg's EncoderDecoder and its subclasses.{inner or ' Remove the setting.'}"
        )


def _all_steps(node: Any, keys: Sequence[str]) -> list[Any]:
    """Returns the steps of an inner data set and those of its wrappers, in the order in which they are applied."""
    steps = []
    for key in keys:
        node = node[int(key) if isinstance(node, list | tuple) else key]
        steps = [*as_list(node.get('pipeline') if isinstance(node, Mapping) else None), *steps]
    return steps


def check_steps(steps: Sequence[Any], path: str) -> None:
    """Checks that the clean crops match the degraded ones and their labels, whether they are added by hand or not.

    Args:
        steps: all steps for an image, in order. Steps without a clean crop and without `LQDegradation` are not checked.
        path: key of the pipeline, for the message.

    Raises:
        ConfigError: there is more than one degradation or clean crop, the clean crop is taken after the degradation,
            or a step after it could change the images or the labels only.
    """
    names = list(step_names(steps))
    for some in ((DEGRADATION,), SOURCES):
        found = [name for name in names if name in some]
        if len(found) > 1:
            raise ConfigError(f'{path} has {len(found)} steps {" and ".join(dict.fromkeys(found))}. Keep one. {STEPS}')
    first = next((number for number, name in enumerate(names) if name in (DEGRADATION, *SOURCES)), len(names))
    for name in names[first + 1 :]:
        if name in SOURCES:
            raise ConfigError(f'{path}: {name} comes after {DEGRADATION}, so the image is not clean. {STEPS}')
        if name not in (DEGRADATION, *NEUTRAL):
            raise ConfigError(
                f'{path}: {name} comes after {names[first]}, so it would change the degraded image or the labels, but '
                f'not the clean crop. Place {name} before {names[first]}. {STEPS}'
            )


def step_names(steps: Any) -> Iterator[str]:
    """Yields the names of the steps of a pipeline and of those nested in them, e.g. in `RandomApply`, in order."""
    for step in as_list(steps):
        if isinstance(step, Mapping):
            if step.get('type'):
                yield type_name(step)
            yield from step_names([value for value in step.values() if isinstance(value, Mapping | list | tuple)])
        elif isinstance(step, list | tuple):
            yield from step_names(step)
        elif callable(step):
            yield type(step).__name__


def keeping_clean(steps: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Returns the steps of a pipeline, with those added that keep the clean crop, if they are missing."""
    names = [type_name(step) for step in steps]
    if DEGRADATION not in names:
        return list(steps)
    kept = []
    for step, name in zip(steps, names, strict=True):
        if name == DEGRADATION and not set(names) & set(SOURCES):
            kept.append({'type': SOURCES[0]})
        if name == 'PackSegInputs':
            default = inspect.signature(PackSegInputs).parameters['meta_keys'].default
            keys = tuple(step.get('meta_keys', default))
            step = copy.copy(step)
            step['meta_keys'] = keys if CLEAN in keys else (*keys, CLEAN)
        kept.append(step)
    return kept
