"""Propagation of the classes of a data set to the heads, prompts and label checks of a config."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS

from rass_mm.config.kinds import type_name
from rass_mm.datasets.metainfo import check_metainfo, dataset_classes, is_segmentation, read_metainfo
from rass_mm.datasets.names import class_names
from rass_mm.datasets.wrappers import leaf_datasets
from rass_mm.errors import ConfigError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
HEADS = ('decode_head', 'auxiliary_head')
EDGES = 2
"""Number of classes of an auxiliary head that detects edges, such as mmseg's STDCHead."""


def follow_classes(config: dict[str, Any]) -> None:
    """Adapts the model and the label checks of a config to the classes of its data, in place.

    The classes are those of the first data set that defines class names, in the order training, validation and test
    data. In the model, `num_classes` and the class weights of the heads and `classes` of the model or its backbone are
    set. With a single class, cross-entropy losses use a sigmoid, because a softmax over one class has no gradient.

    Only missing values and defaults are replaced. The default number of classes is the top-level `num_classes` of the
    config. A default class list is the name of another data set with that number of classes. A list of
    different names, e.g. of more descriptive prompts, is kept if it has one name for each class of the data.

    Each `LoadLabelStrict` is set to the number of classes of its own data set. mmseg data sets without class names use
    those of the first data set. A config whose data sets define no class names is not changed.

    Args:
        config: a config with `model` and data loaders.

    Raises:
        ConfigError: class names or a palette of the data are not valid, see `check_metainfo`; or a number of classes, a
            class list or a list of class weights contradicts the data. The message lists all contradictions.
    """
    check_metainfo(config, LOADERS)
    source, metainfo = model_data(config)
    if metainfo:
        _share(config, metainfo)
    if metainfo and config.get('model'):
        _Follower(metainfo['classes'], source, config.get('num_classes')).apply(config)
    for loader, dataset in _datasets(config):
        names = dataset_classes(dataset)
        if names:
            pipelines = [dataset.get('pipeline')]
            pipelines += [config.get('tta_pipeline')] if loader == 'test_dataloader' else []
            _set_label_checks(pipelines, len(names))


def has_head(model: Any) -> bool:
    """Checks whether a model config, or a segmentor inside it, has a decode head or an auxiliary head."""
    return any(part.get(key) for _, part in segmentor_parts(model) for key in HEADS)


def model_heads(model: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the dotted key and the config of each decode head and auxiliary head of a model."""
    for key, part in segmentor_parts(model):
        for name in HEADS:
            yield from _heads(part.get(name), f'{key}.{name}')


class FollowedNames(list):
    """List of class names that was copied from a data set, so it may be replaced if the data set changes."""


class _Follower:
    """Sets the classes in one config and collects the values that contradict the data set.

    Args:
        names: class names of the data set.
        source: description of the data set, for messages.
        default: number of classes for which the config was written, or None if it is unknown.
    """

    def __init__(self, names: list[str], source: str, default: int | None) -> None:
        self.names, self.source, self.default = names, source, default
        self.changes: list[str] = []
        self.faults: list[str] = []

    def apply(self, config: dict[str, Any]) -> None:
        """Sets the classes in the whole config.

        Raises:
            ConfigError: the config contains values that contradict the data set.
        """
        for key, part in segmentor_parts(config['model']):
            for name in HEADS:
                for path, head in _heads(part.get(name), f'{key}.{name}'):
                    self._head(path, head, name == 'auxiliary_head')
            for path, owner in ((key, part), (f'{key}.backbone', part.get('backbone'))):
                if isinstance(owner, Mapping):
                    self._names(path, owner)
        if self.faults:
            listed = '\n'.join(f'  {fault}' for fault in self.faults)
            raise ConfigError(
                f'{self.source} has {described(self.names)}, but the config has other values:\n{listed}\nRemove these '
                f'keys, which are then set from the data set, or correct the metainfo.classes of the data set.'
            )
        if 'num_classes' in config and self.changes:
            config['num_classes'] = len(self.names)  # the new default
        if self.changes:
            print_log(f'{self.source} has {described(self.names)}. Set: {", ".join(self.changes)}.', 'current')

    def _head(self, path: str, head: dict[str, Any], auxiliary: bool) -> None:
        count, number = len(self.names), head.get('num_classes')
        if number is None and not _takes(head, 'num_classes'):
            return
        if number in (None, self.default):
            if number != count:
                head['num_classes'] = count
                self.changes.append(f'{path}.num_classes={count}')
        elif number != count and not (auxiliary and number == EDGES):
            self.faults.append(f'{path}.num_classes={number}')
            return
        kind = _registered(head)
        if count == 1 and inspect.isclass(kind) and issubclass(kind, BaseDecodeHead):
            self._one_class(path, head)
        for name in ('loss_cls', 'loss_decode'):
            losses = head.get(name)
            for loss in losses if isinstance(losses, list | tuple) else [losses]:
                if isinstance(loss, Mapping) and isinstance(loss.get('class_weight'), list | tuple):
                    self._weights(f'{path}.{name}', loss, extra=int(name == 'loss_cls'))

    def _one_class(self, path: str, head: dict[str, Any]) -> None:
        """Switches the losses of a single class to a sigmoid, because a softmax over one class is always 1."""
        losses = head.setdefault('loss_decode', {'type': 'CrossEntropyLoss'})
        for loss in losses if isinstance(losses, list | tuple) else [losses]:
            if type_name(loss) == 'CrossEntropyLoss' and not loss.get('use_sigmoid'):
                loss['use_sigmoid'] = True
                self.changes.append(f'{path}.loss_decode.use_sigmoid=True')

    def _weights(self, path: str, loss: dict[str, Any], extra: int) -> None:
        """Sets one weight per class. The last `extra` weights, e.g. for queries without a class, are kept."""
        weights, count = list(loss['class_weight']), len(self.names)
        per_class, others = weights[: len(weights) - extra], weights[len(weights) - extra :]
        if len(per_class) == count:
            return
        if len(per_class) == self.default and len(set(per_class)) == 1:
            loss['class_weight'] = per_class[:1] * count + others
            self.changes.append(f'{path}.class_weight of {count + extra} values')
        else:
            self.faults.append(f'{path}.class_weight has {len(weights)} values instead of {count + extra}')

    def _names(self, path: str, owner: dict[str, Any]) -> None:
        given = owner.get('classes')
        if given is None and not _takes(owner, 'classes', required=True):
            return
        listed = None if given is None else class_names(given)
        if listed == self.names:
            return
        named = isinstance(given, str) and self.default in (None, len(listed))
        if given is None or named or isinstance(given, FollowedNames):
            owner['classes'] = FollowedNames(self.names)
            self.changes.append(f'{path}.classes')
        elif len(listed) != len(self.names) or sorted(listed) == sorted(self.names):
            self.faults.append(f'{path}.classes has {described(listed)}')


def model_data(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the description and the metainfo of the first data set that defines classes. Both may be empty."""
    for name, dataset in _datasets(config):
        metainfo = read_metainfo(dataset)
        if metainfo.get('classes'):
            return f'{name} ({type_name(dataset)})', {**metainfo, 'classes': list(metainfo['classes'])}
    return '', {}


def _share(config: dict[str, Any], metainfo: dict[str, Any]) -> None:
    shared = {key: metainfo[key] for key in ('classes', 'palette') if metainfo.get(key)}
    for _, dataset in _datasets(config):
        if is_segmentation(dataset) and not dataset_classes(dataset):
            dataset['metainfo'] = {**(dataset.get('metainfo') or {}), **shared}


def _datasets(config: dict[str, Any], loaders: Sequence[str] = LOADERS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the loader name and the config of each data set, including those inside wrappers."""
    for loader in loaders:
        dataset = (config.get(loader) or {}).get('dataset')
        if dataset:
            yield from ((loader, leaf) for _, leaf in leaf_datasets(dataset, loader))


def segmentor_parts(model: Any, key: str = 'model') -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the dotted key and the config of a model, and of each segmentor nested in it, e.g. in a TTA model."""
    if isinstance(model, Mapping):
        yield key, model
        for name in ('segmentor', 'module'):
            yield from segmentor_parts(model.get(name), f'{key}.{name}')


def _heads(heads: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(heads, list | tuple):
        for index, head in enumerate(heads):
            yield f'{key}[{index}]', head
    elif isinstance(heads, Mapping):
        yield key, heads


def _takes(config: Mapping[str, Any], name: str, required: bool = False) -> bool:
    """Checks whether the class in a config accepts an argument `name` or, if `required` is set, requires it."""
    kind = _registered(config)
    if kind is None:
        return False
    parameters = inspect.signature(kind).parameters
    if required:
        return name in parameters and parameters[name].default is inspect.Parameter.empty
    return name in parameters or any(value.kind is value.VAR_KEYWORD for value in parameters.values())


def _registered(config: Mapping[str, Any]) -> Any:
    kind = config.get('type')
    return MODELS.get(kind) if isinstance(kind, str) else kind


def _set_label_checks(steps: Any, count: int) -> None:
    if isinstance(steps, Mapping):
        if type_name(steps) == 'LoadLabelStrict':
            steps['num_classes'] = count
        steps = [value for value in steps.values() if isinstance(value, Mapping | list | tuple)]
    for step in steps if isinstance(steps, list | tuple) else ():
        _set_label_checks(step, count)


def described(names: Sequence[str]) -> str:
    """Returns the number and the first names of classes, for a message."""
    return f'{len(names)} class{"es" * (len(names) != 1)} ({", ".join(names[:4])}{", ..." if len(names) > 4 else ""})'
