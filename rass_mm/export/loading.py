"""Loads the network of an exported model."""

from rass_mm.errors import ConfigError
from rass_mm.export.formats import Run, format_module
from rass_mm.export.metadata import Exported


def load_run(exported: Exported) -> Run:
    """Loads the network of an exported model.

    Raises:
        InstallationError: the runtime is not installed.
        ConfigError: the runtime cannot load the network.
    """
    metadata = exported.metadata
    module = format_module(metadata['format'])
    try:
        return module.load(exported.folder, metadata['dtype'])
    except Exception as error:  # runtimes raise errors of many classes
        lines = str(error).strip().splitlines() or ['']
        versions = ', '.join(f'{name} {version}' for name, version in module.versions().items())
        raise ConfigError(
            f'{exported.folder} cannot be loaded ({lines[0][:300]}). It was written with other versions of the '
            f'libraries than the installed ones ({versions}), or is damaged. Export the model again.'
        ) from error
