"""Class lists, given directly or by the name of a data set."""

from collections.abc import Sequence

from mmseg.registry import DATASETS

from rass_mm.config.registries import registered
from rass_mm.errors import ConfigError


def class_names(classes: str | Sequence[str]) -> list[str]:
    """Returns the list itself, or the METAINFO classes of the data set registered with mmseg under this name.

    Raises:
        ConfigError: the data set is not registered.
    """
    if not isinstance(classes, str):
        return list(classes)
    # A registry imports unknown names, and `classes` may come from an untrusted config.
    dataset = DATASETS.get(classes) if registered(classes) else None
    if dataset is None:
        raise ConfigError(
            f'classes={classes!r} is not a registered data set. Set it to a registered name or a list of class names.'
        )
    return list(dataset.METAINFO['classes'])
