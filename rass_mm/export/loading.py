"""Loads the network of an exported model."""

from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.export.formats import Network, format_module
from rass_mm.export.metadata import AGAIN, METADATA, Exported


def load_network(exported: Exported) -> Network:
    """Loads the network of an exported model.

    Raises:
        InstallationError: the runtime is not installed.
        ConfigError: the runtime cannot load the network.
        CheckpointError: the network has other shapes than its metadata, or consists of files that they do not list.
    """
    metadata = exported.metadata
    module = format_module(metadata['format'])
    try:
        _check_listed(exported, module.opened(exported.folder))
        network = module.load(exported.folder, metadata['dtype'])
    except CheckpointError:
        raise
    except Exception as error:  # runtimes raise errors of many classes
        lines = str(error).strip().splitlines() or ['']
        versions = ', '.join(f'{name} {version}' for name, version in module.versions().items())
        raise ConfigError(
            f'{exported.folder} cannot be loaded ({lines[0][:300]}). It was written with other versions of the '
            f'libraries than the installed ones ({versions}), or is damaged. Export the model again.'
        ) from error
    for name, found in zip(('input', 'output'), network.shapes, strict=True):
        if list(found) != metadata[name]:
            raise CheckpointError(
                f'The {name} of the network in {exported.folder} has the shape {list(found)}, but {METADATA} says '
                f'{metadata[name]}. {AGAIN}'
            )
    return network


def _check_listed(exported: Exported, opened: set[str]) -> None:
    """Checks that the hashes of all files that a runtime opens have been compared with the metadata."""
    others = sorted(opened - set(exported.metadata['files']))
    if others:
        raise CheckpointError(
            f'The network in {exported.folder} opens {", ".join(others)}, but {METADATA} does not list it. {AGAIN}'
        )
