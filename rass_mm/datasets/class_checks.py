"""Contradictions between the classes of a data set and the model, and settings that do not do what they seem to do."""

from collections.abc import Iterator, Mapping
from typing import Any

from rass_mm.config.kinds import as_list, type_name
from rass_mm.config.names import did_you_mean, is_misspelled
from rass_mm.datasets.classes import described, has_head, model_data, model_heads
from rass_mm.datasets.metainfo import dataset_class, dataset_classes, is_segmentation
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.errors import ConfigError

IGNORED = 255
"""Default of `ignore_index` in mmseg's heads and metrics, and in `LoadLabelStrict`."""


def check_split(config: Mapping[str, Any], loader: str) -> None:
    """Checks that a model can use the classes of the data sets of a loader, see `class_faults`.

    Raises:
        ConfigError: it cannot.
    """
    for path, dataset in leaf_paths(config.get(loader), loader):
        for fault in class_faults(config, path, dataset):
            raise ConfigError(fault)


def class_faults(config: Mapping[str, Any], path: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yields error messages about the classes of a data set.

    These are names that differ from those of the model, so that metrics would be meaningless; no names, which mmseg's
    metric and the prompts need; and a single class, see `single_class_is_zero`. A config without a model is checked for
    a single class only, and a model without a segmentation head is not.

    Args:
        config: config with the model and its data loaders.
        path: dotted key of the data set.
        dataset: config of the data set, without wrappers.
    """
    source, metainfo = model_data(config)
    names, kind, segments = dataset_classes(dataset), type_name(dataset), has_head(config.get('model'))
    if metainfo and segments and names and names != metainfo['classes']:
        yield (
            f'{path} ({kind}) has {described(names)}, but the model uses those of {source}: '
            f'{described(metainfo["classes"])}. Set the same metainfo.classes in both data sets.'
        )
    if config.get('model') and not names and is_segmentation(dataset):
        yield _nameless(path, dataset)
    if (segments or not config.get('model')) and single_class_is_zero(dataset):
        yield (
            f'{path} ({kind}) has a single class, {names[0]}. With these settings, its id is 0 and all other pixels '
            'are ignored, so there is nothing to learn. Name the background too: '
            f"{path}.metainfo.classes=('background', {names[0]!r}) and reduce_zero_label=False, for label files with "
            f'the ids 0 (background) and 1 ({names[0]}).'
        )


def _nameless(path: str, dataset: Mapping[str, Any]) -> str:
    kind = type_name(dataset)
    for key in dataset:
        if key != 'metainfo' and is_misspelled(key, ['metainfo']):
            return f'{path}.{key} is not a setting of {kind}. {did_you_mean(["metainfo"])}'
    return (
        f'{path} ({kind}) has no class names. Set {path}.metainfo.classes to the names in the order of their ids, '
        "e.g. ('background', 'car')."
    )


def single_class_is_zero(dataset: Mapping[str, Any]) -> bool:
    """Returns whether a data set has a single class, whose id is 0 after loading, and ignores all other pixels.

    This is the case with `reduce_zero_label`, with `LoadLabelStrict`, and if the class was selected from a known data
    set. Otherwise, mmseg's head with a single channel learns id 0 as the background and id 1 as the class.
    """
    names = dataset_classes(dataset)
    if len(names) != 1:
        return False
    known = getattr(dataset_class(dataset), 'METAINFO', {}).get('classes')
    strict = 'LoadLabelStrict' in map(type_name, dataset.get('pipeline') or ())
    return bool(dataset.get('reduce_zero_label') or strict or known and list(known) != names)


def check_ignored(config: Mapping[str, Any], loader: str) -> None:
    """Checks that the model and the metrics ignore the id that the data sets of a loader ignore, see `ignored_faults`.

    Raises:
        ConfigError: they do not.
    """
    for path, dataset in leaf_paths(config.get(loader), loader):
        for fault in ignored_faults(config, path, dataset):
            raise ConfigError(fault)


def ignored_faults(config: Mapping[str, Any], path: str, dataset: Mapping[str, Any]) -> Iterator[str]:
    """Yields error messages about an ignored id that is not the same in all places of a config.

    mmseg does not use the `ignore_index` of a data set. The loss uses that of the head, and the metric its own.
    `LoadLabelStrict` refuses all other ids. Without it, an id is ignored where the head and the metric ignore it.

    Args:
        config: config with the model, its data loaders and its evaluators.
        path: dotted key of the data set.
        dataset: config of the data set, without wrappers.
    """
    users = _users_of_ignored(config, path.partition('_dataloader')[0])
    step = next((step for step in dataset.get('pipeline') or () if type_name(step) == 'LoadLabelStrict'), None)
    ignoring = step if step is not None else users[0][1] if users else {}
    loaded, given = ignoring.get('ignore_index', IGNORED), dataset.get('ignore_index')
    fix = f'Save ignored pixels as id {IGNORED} and remove the setting'
    if given not in (None, loaded):
        zero = ', or set reduce_zero_label=True if the ids of the classes start at 1' if given == 0 else ''
        yield (
            f'{path}.ignore_index={given} has no effect: id {loaded} is ignored, and id {given} is not. {fix}{zero}.'
        )
    for key, part in users if step is not None else ():
        used = part.get('ignore_index', IGNORED)
        if used != loaded:
            yield (
                f'{path} is loaded with the ignored id {loaded} (LoadLabelStrict.ignore_index), but {key} '
                f'({type_name(part)}) ignores id {used}. Set {key}.ignore_index={loaded}.'
            )


def _users_of_ignored(config: Mapping[str, Any], split: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the heads or the metrics of a split, each with its key."""
    users = list(model_heads(config.get('model'))) if split == 'train' else []
    for number, metric in enumerate(as_list(config.get(f'{split}_evaluator'))):
        if type_name(metric).endswith('IoUMetric'):
            users.append((f'{split}_evaluator.{number}', metric))
    return users
