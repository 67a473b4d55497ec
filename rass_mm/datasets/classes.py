"""The class count and the class names of a config come from its data set; heads, prompts and label checks follow."""

import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS, MODELS

from rass_mm.datasets.check.listing import leaf_datasets
from rass_mm.datasets.names import class_names
from rass_mm.errors import ConfigError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
HEADS = ('decode_head', 'auxiliary_head')
EDGES = 2
"""Classes of an auxiliary head that tells edges from the rest, as mmseg's STDCHead does."""


def follow_classes(config: dict[str, Any]) -> None:
    """Gives the model and the label checks of a config the classes of its training data, in place.

    Of the model these follow: `num_classes` and class weights of its heads, and `classes` of the model or its backbone.
    A value that is absent or a default is replaced. The default of a number is the one that stands at the top of the
    config as `num_classes`, the default of a class list is the name of another data set of that many classes. Each
    `LoadLabelStrict` gets the number of classes of its own data set. A data set of mmseg without class names gets those
    of the training data. A config without such a data set is left as it is.

    Args:
        config: a config with `model` and data loaders.

    Raises:
        ConfigError: a number or a class list is neither that of the data nor a default; the message names both.
    """
    source, metainfo = _model_data(config)
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


def check_split(config: dict[str, Any], loader: str) -> None:
    """Checks that the data of a loader has the classes of the model's data, by number and name.

    Raises:
        ConfigError: it has others, so that no metric would mean anything; the message names both.
    """
    source, metainfo = _model_data(config)
    if not metainfo or not any(part.get(key) for _, part in _parts(config.get('model')) for key in HEADS):
        return
    for name, dataset in _datasets(config, (loader,)):
        own = dataset_classes(dataset)
        if own and own != metainfo['classes']:
            raise ConfigError(
                f'{name} ({dataset["type"]}) has {_named(own)}, but the model has those of {source}: '
                f'{_named(metainfo["classes"])}. Set the same metainfo.classes in both data sets.'
            )


def dataset_classes(dataset: Mapping[str, Any]) -> list[str]:
    """Class names of a data set config: its `metainfo.classes`, else those of its type; empty where there are none."""
    return list(_metainfo(dataset).get('classes') or ())


def follow_in_runner() -> None:
    """Makes mmengine's runners follow the classes too, for configs whose `custom_imports` name this package.

    mmseg's own tools and scripts build their runners by `Runner.from_cfg`, without `rass_mm.apis.prepare_config`. It is
    the constructor that is wrapped: in `Runner.from_cfg(Config.fromfile(...))` the method is looked up before the
    config imports this package. `from_cfg` hands it a copy of the config, and parts of that copy.
    """
    build = Runner.__init__

    @functools.wraps(build)
    def follow_and_build(self: Runner, *args: Any, **kwargs: Any) -> None:
        config = kwargs.get('cfg') or {}
        imports = (config.get('custom_imports') or {}).get('imports') or ()
        if 'rass_mm' in ([imports] if isinstance(imports, str) else imports):
            follow_classes(config)
        build(self, *args, **kwargs)

    Runner.__init__ = follow_and_build


class _Follower:
    """Sets what follows in one config, and collects what contradicts.

    Args:
        names: the classes of the data.
        source: of the names, in words.
        default: the number of classes that the config was written for.
    """

    def __init__(self, names: list[str], source: str, default: int | None) -> None:
        self.names, self.source, self.default = names, source, default
        self.changes: list[str] = []
        self.faults: list[str] = []

    def apply(self, config: dict[str, Any]) -> None:
        """Goes through the whole config.

        Raises:
            ConfigError: something contradicts.
        """
        for key, part in _parts(config['model']):
            for name in HEADS:
                for path, head in _heads(part.get(name), f'{key}.{name}'):
                    self._head(path, head, name == 'auxiliary_head')
            for path, owner in ((key, part), (f'{key}.backbone', part.get('backbone'))):
                if isinstance(owner, Mapping):
                    self._names(path, owner)
        if self.faults:
            listed = '\n'.join(f'  {fault}' for fault in self.faults)
            raise ConfigError(
                f'{self.source} has {_named(self.names)}, but the config says otherwise:\n{listed}\nRemove these keys, '
                f'they follow the data set, or correct the metainfo.classes of the data set.'
            )
        if 'num_classes' in config and self.changes:
            config['num_classes'] = len(self.names)  # the default from here on
        if self.changes:
            print_log(f'{self.source} has {_named(self.names)}: {", ".join(self.changes)}.', 'current')

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
        for name in ('loss_cls', 'loss_decode'):
            losses = head.get(name)
            for loss in losses if isinstance(losses, list | tuple) else [losses]:
                if isinstance(loss, Mapping) and isinstance(loss.get('class_weight'), list | tuple):
                    self._weights(f'{path}.{name}', loss, extra=int(name == 'loss_cls'))

    def _weights(self, path: str, loss: dict[str, Any], extra: int) -> None:
        """One weight per class; a loss over queries has one more, for a query that is of no class."""
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
        if given is None or named:
            owner['classes'] = self.names
            self.changes.append(f'{path}.classes')
        elif len(listed) != len(self.names) or sorted(listed) == sorted(self.names):
            self.faults.append(f'{path}.classes has {_named(listed)}')


def _model_data(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The data set whose classes the model has, in words, and its meta information; empty where no data has classes."""
    for name, dataset in _datasets(config):
        metainfo = _metainfo(dataset)
        if metainfo.get('classes'):
            return f'{name} ({dataset["type"]})', {**metainfo, 'classes': list(metainfo['classes'])}
    return '', {}


def _share(config: dict[str, Any], metainfo: dict[str, Any]) -> None:
    shared = {key: metainfo[key] for key in ('classes', 'palette') if metainfo.get(key)}
    for _, dataset in _datasets(config):
        kind = _registered(DATASETS, dataset)
        if inspect.isclass(kind) and issubclass(kind, BaseSegDataset) and not dataset_classes(dataset):
            dataset['metainfo'] = {**(dataset.get('metainfo') or {}), **shared}


def _datasets(config: dict[str, Any], loaders: Sequence[str] = LOADERS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name of the loader and config of each data set, parts of wrappers one by one."""
    for loader in loaders:
        dataset = (config.get(loader) or {}).get('dataset')
        if dataset:
            yield from ((loader, leaf) for _, leaf in leaf_datasets(dataset, loader))


def _metainfo(dataset: Mapping[str, Any]) -> dict[str, Any]:
    kind = _registered(DATASETS, dataset)
    if not hasattr(kind, '_load_metainfo'):
        return {}
    found = kind._load_metainfo(dataset.get('metainfo'))  # which also reads a file of names
    return found if isinstance(found.get('classes'), list | tuple) else {}


def _parts(model: Any, key: str = 'model') -> Iterator[tuple[str, dict[str, Any]]]:
    """A model's config, and that of the segmentor inside another or under test-time augmentation."""
    if isinstance(model, Mapping):
        yield key, model
        for name in ('segmentor', 'module'):
            yield from _parts(model.get(name), f'{key}.{name}')


def _heads(heads: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(heads, list | tuple):
        for index, head in enumerate(heads):
            yield f'{key}[{index}]', head
    elif isinstance(heads, Mapping):
        yield key, heads


def _takes(config: Mapping[str, Any], name: str, required: bool = False) -> bool:
    """Whether what a config builds takes an argument of that name, or cannot be built without it."""
    kind = _registered(MODELS, config)
    if kind is None:
        return False
    parameters = inspect.signature(kind).parameters
    if required:
        return name in parameters and parameters[name].default is inspect.Parameter.empty
    return name in parameters or any(value.kind is value.VAR_KEYWORD for value in parameters.values())


def _registered(registry: Any, config: Mapping[str, Any]) -> Any:
    kind = config.get('type')
    return registry.get(kind) if isinstance(kind, str) else kind


def _set_label_checks(steps: Any, count: int) -> None:
    if isinstance(steps, Mapping):
        kind = steps.get('type')
        if (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2] == 'LoadLabelStrict':
            steps['num_classes'] = count
        steps = [value for value in steps.values() if isinstance(value, Mapping | list | tuple)]
    for step in steps if isinstance(steps, list | tuple) else ():
        _set_label_checks(step, count)


def _named(names: Sequence[str]) -> str:
    return f'{len(names)} classes ({", ".join(names[:4])}{", ..." if len(names) > 4 else ""})'
