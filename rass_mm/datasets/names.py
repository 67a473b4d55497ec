"""Class lists, by themselves or by the name of a data set."""

from collections.abc import Sequence

from mmseg.registry import DATASETS

from rass_mm.config.registries import registered
from rass_mm.errors import ConfigError


def class_names(classes: str | Sequence[str]) -> list[str]:
    """The list itself, or the METAINFO classes of the data set registered in mmseg under that name.

    Raises:
        ConfigError: no such data set.
    """
    if not isinstance(classes, str):
        return list(classes)
    # A registry imports a name that it does not have, and `classes` may come from a config that is data.
    dataset = DATASETS.get(classes) if registered(classes) else None
    if dataset is None:
        raise ConfigError(
            f'classes={classes!r} is no registered data set. Give its registered name or the list of class names.'
        )
    return list(dataset.METAINFO['classes'])
