"""Options of commands that run exported models."""

import argparse
import logging
from typing import Any

from rass_mm.errors import ConfigError
from rass_mm.export.metadata import BACKENDS, Exported, read_exported

logger = logging.getLogger(__name__)


def add_backend(parser: argparse.ArgumentParser, option: str) -> None:
    """Adds the option --backend. `option` names the model."""
    parser.add_argument(
        '--backend',
        choices=BACKENDS,
        help=f'run an exported model, whose folder is given with {option}, with this runtime on the CPU (default: '
        'PyTorch)',
    )


def exported_model(arguments: argparse.Namespace, path: Any, kind: str, unused: dict[str, str]) -> Exported:
    """Reads the exported model of a command.

    Args:
        arguments: the parsed command line, with a backend.
        path: the folder of the model.
        kind: 'segmentor' or 'restorer'.
        unused: attribute -> name of each option that an exported model does not have.

    Raises:
        ConfigError: such an option is set, or the folder does not contain a suitable model.
        CheckpointError: the exported model is damaged.
    """
    given = [name for attribute, name in unused.items() if getattr(arguments, attribute)]
    if given:
        raise ConfigError(
            f'{", ".join(given)} cannot be combined with --backend, because the exported model is fixed. Remove '
            f'{"it" if len(given) == 1 else "them"}, or export the model again with other options.'
        )
    exported = read_exported(path, arguments.backend, kind)
    metadata, (height, width) = exported.metadata, exported.window
    logger.info('Backend: %s, weights in %s, windows of %dx%d', arguments.backend, metadata['dtype'], width, height)
    return exported
