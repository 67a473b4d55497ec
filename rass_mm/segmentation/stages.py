"""Stages and most expensive modules of a segmentor with a backbone and a decode head."""

from torch import nn

from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import ConfigError

HEAD_CALLS = ('forward', 'predict', 'rows')


def segmentor_stages(model: nn.Module) -> list[StagePoint]:
    """Returns the stages of a segmentor in order: its `stage_points()`, or backbone, neck and head.

    Raises:
        ConfigError: it has neither `stage_points` nor a backbone and a decode head.
    """
    if hasattr(model, 'stage_points'):
        return model.stage_points()
    if not (hasattr(model, 'backbone') and hasattr(model, 'decode_head')):
        raise ConfigError(
            f'{type(model).__name__} cannot be divided into stages: it needs a method stage_points, or a backbone and '
            f'a decode_head.'
        )
    return parts_of(model)


def parts_of(model: nn.Module) -> list[StagePoint]:
    """Returns backbone, neck and head of a segmentor; a backbone with `stage_points` is divided further."""
    described = getattr(model.backbone, 'stage_points', None)
    points = described() if described else [StagePoint('backbone', model.backbone)]
    points += [StagePoint('neck', model.neck)] if getattr(model, 'neck', None) is not None else []
    heads = model.decode_head if isinstance(model.decode_head, nn.ModuleList) else [model.decode_head]
    return points + [StagePoint('head', head, call) for head in heads for call in HEAD_CALLS if hasattr(head, call)]


def segmentor_heavy_modules(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that take most of the time: `heavy_modules()` of segmentor or backbone, or the backbone."""
    for owner in (model, model.backbone):
        if hasattr(owner, 'heavy_modules'):
            return owner.heavy_modules()
    return [model.backbone]
