"""Stages and heavy modules of any segmentor with a backbone and a decode head."""

from torch import nn

from rass_mm.diffusion.stages import StagePoint
from rass_mm.errors import ConfigError

HEAD_CALLS = ('forward', 'predict', 'rows')


def segmentor_stages(model: nn.Module) -> list[StagePoint]:
    """Where each stage of a segmentor runs, in order: its own description, or backbone, neck and head.

    Raises:
        ConfigError: it has neither a description nor a backbone and a decode head.
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
    """Backbone, neck and head of a segmentor; a backbone that describes itself is divided."""
    described = getattr(model.backbone, 'stage_points', None)
    points = described() if described else [StagePoint('backbone', model.backbone)]
    points += [StagePoint('neck', model.neck)] if getattr(model, 'neck', None) is not None else []
    heads = model.decode_head if isinstance(model.decode_head, nn.ModuleList) else [model.decode_head]
    return points + [StagePoint('head', head, call) for head in heads for call in HEAD_CALLS if hasattr(head, call)]


def segmentor_heavy_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that take most of a segmentor's time: its own list, its backbone's, or the backbone."""
    for owner in (model, model.backbone):
        if hasattr(owner, 'heavy_modules'):
            return owner.heavy_modules()
    return [model.backbone]
