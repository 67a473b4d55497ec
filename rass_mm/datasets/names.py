"""Class lists, given directly or by the name of a data set."""

from collections.abc import Sequence

from mmseg.registry import DATASETS

from rass_mm.config.registries import registered
from rass_mm.errors import ConfigError


def class_names(classes: str | Sequence[str]) -> list[str]:
    """Returns a list of class names.

    Args:
        classes: class names, or the name of a data set that is registered with mmseg and has `METAINFO['classes']`.

    Raises:
        ConfigError: the data set is not registered, or its classes are a string.
    """
    if not isinstance(classes, str):
        return list(classes)
    # A registry imports unknown names, and `classes` may come from an untrusted config.
    dataset = DATASETS.get(classes) if registered(classes) else None
    if dataset is None:
        raise ConfigError(
            f'classes={classes!r} is not a registered data set. Set classes to a registered name or a list of names. A '
            f'tuple of a single name needs a comma: ({classes!r},).'
        )
    names = dataset.METAINFO['classes']
    if isinstance(names, str):
        raise ConfigError(f"{classes}.METAINFO['classes'] is {names!r}. Set it to a tuple of names: ({names!r},).")
    return list(names)
