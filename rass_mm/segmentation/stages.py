"""Divides a segmentor into stages whose run time can be measured, and finds its most expensive modules."""

from torch import nn

from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import ConfigError

HEAD_CALLS = ('forward', 'predict', 'rows')


def segmentor_stages(model: nn.Module) -> list[StagePoint]:
    """Returns the stages of a segmentor in order: `model.stage_points()` if defined, else backbone, neck and heads.

    Raises:
        ConfigError: the model has neither a method `stage_points` nor both a backbone and a decode head.
    """
    if hasattr(model, 'stage_points'):
        return model.stage_points()
    if not (hasattr(model, 'backbone') and hasattr(model, 'decode_head')):
        raise ConfigError(
            f'{type(model).__name__} cannot be divided into stages. It needs a method stage_points, or both a '
            f'backbone and a decode_head.'
        )
    return parts_of(model)


def parts_of(model: nn.Module) -> list[StagePoint]:
    """Returns the backbone, neck and heads as stages. A backbone with `stage_points` contributes its own stages."""
    described = getattr(model.backbone, 'stage_points', None)
    points = described() if described else [StagePoint('backbone', model.backbone)]
    points += [StagePoint('neck', model.neck)] if getattr(model, 'neck', None) is not None else []
    heads = model.decode_head if isinstance(model.decode_head, nn.ModuleList) else [model.decode_head]
    return points + [StagePoint('head', head, call) for head in heads for call in HEAD_CALLS if hasattr(head, call)]


def segmentor_heavy_modules(model: nn.Module) -> list[nn.Module]:
    """Returns the most expensive modules: `heavy_modules()` of the segmentor or of its backbone, else the backbone."""
    for owner in (model, model.backbone):
        if hasattr(owner, 'heavy_modules'):
            return owner.heavy_modules()
    return [model.backbone]
