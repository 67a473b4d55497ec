"""Reads YAML as data, with a size limit and without tags that create Python objects.

mmengine reads YAML with PyYAML's full loader, which calls any function named by a `!!python/object/apply:...` tag.
"""

from typing import Any

import yaml
from mmengine.fileio.handlers.yaml_handler import YamlHandler

from rass_mm.errors import ConfigError

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML was built without libyaml
    from yaml import SafeLoader

NODES = 200_000
"""Maximum number of values in a file, with every alias expanded. 64 characters of a string count as one value."""
DEPTH = 100
CORE = 'tag:yaml.org,2002:'
TUPLE = f'{CORE}python/tuple'
TAGS = {None, '!', TUPLE, *(CORE + name for name in ('str', 'int', 'float', 'bool', 'null', 'seq', 'map'))}


class DataLoader(SafeLoader):
    """Safe loader that also reads the tuples that mmengine's `Config.dump` writes, and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):  # the last one would count
            repeated = next(key[1] for key in keys if keys.count(key) > 1)
            raise yaml.constructor.ConstructorError(None, None, f'the key {repeated!r} is given twice', node.start_mark)
        return super().construct_mapping(node, deep)


DataLoader.add_constructor(TUPLE, lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))


class DataYamlHandler(YamlHandler):
    """YAML file handler for mmengine that reads only data."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """Reads a file with the safe loader, unless the caller passes another `Loader`."""
        return yaml.load(file, **{'Loader': DataLoader, **kwargs})


def parse_yaml(text: str, source: str) -> Any:
    """Returns the content of a YAML document.

    Raises:
        ConfigError: the document is not valid, has a tag that creates an object, or is too large when its aliases are
            expanded.
    """
    try:
        _check_events(text, source)
        return yaml.load(text, Loader=DataLoader)
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f'{source} is not valid YAML: {" ".join(str(error).split())}') from None


def _check_events(text: str, source: str) -> None:
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, and the number of values before it
    count = 0
    for event in yaml.parse(text, Loader=DataLoader):
        _check_tag(event, source)
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ConfigError(f'{source}:{_line(event)}: *{event.anchor} refers to a value that contains it.')
            count += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            sizes |= {anchor: count - before} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            size = 1 + len(event.value) // 64
            sizes |= {event.anchor: size} if event.anchor else {}
            count += size
        if count > NODES or len(open_nodes) > DEPTH:
            raise ConfigError(
                f'{source}:{_line(event)}: the config exceeds the limit of {NODES} values (with aliases expanded) or '
                f'{DEPTH} levels.'
            )


def _check_tag(event: Any, source: str) -> None:
    tag = getattr(event, 'tag', None)
    if tag not in TAGS:
        raise ConfigError(
            f'{source}:{_line(event)}: the YAML tag {tag!r} is not allowed because tags can create Python objects and '
            'run code. Write the value as plain YAML.'
        )


def _line(event: Any) -> int:
    return event.start_mark.line + 1
