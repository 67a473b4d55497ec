"""Checks of pretrained weight files.

mmengine loads such a file with `strict=False` and only logs mismatches. With the file of another network, or one with
the original tensor names, a backbone would train from random weights without an error.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.remote import refuse_remote
from rass_mm.errors import CheckpointError

NEEDED = 0.9
"""Minimum fraction of a module's parameters in its file; mmseg's Swin, for example, has norms that classifiers lack."""


def check_pretrained(model: nn.Module) -> None:
    """Checks the files named by `init_cfg=dict(type='Pretrained', checkpoint=FILE)` in the submodules of a model.

    Raises:
        CheckpointError: a file is missing or not local, is rejected by the safe loader, or lacks tensors of its
            submodule.
    """
    for name, part in model.named_modules():
        config = getattr(part, 'init_cfg', None)
        if not isinstance(config, dict) or config.get('type') != 'Pretrained':
            continue
        _check_file(part, config, 'model.' + name.removeprefix('module.'))


def _check_file(part: nn.Module, config: dict[str, Any], key: str) -> None:
    path, option = config['checkpoint'], f'--cfg-options {key}.init_cfg.checkpoint=FILE'
    if '://' in str(path):
        refuse_remote(str(path))
    if not Path(path).expanduser().is_file():
        raise CheckpointError(
            f'{key} starts from the pretrained weights {path}, which do not exist; nothing is downloaded. Put the file '
            f'there (see configs/baselines/README.md for its source), set another path with {option}, or train from '
            f'random weights with --cfg-options {key}.init_cfg=None.'
        )
    given, own = _tensors(load_local(path, 'cpu'), config.get('prefix') or ''), dict(part.named_parameters())
    missing = [name for name, value in own.items() if not _fits(given.get(name), value)]
    if len(missing) > (1 - NEEDED) * len(own):
        raise CheckpointError(
            f'{path} does not match {key} ({type(part).__name__}): {len(missing)} of {len(own)} tensors are missing or '
            f'have another shape, e.g. {missing[0]}. The file contains {", ".join(list(given)[:3])}, ... Set a file of '
            f'exactly this network, with the tensor names of mmsegmentation, with {option}. Convert a file published '
            'by the authors of the network first, see configs/baselines/README.md.'
        )


def _tensors(loaded: Any, prefix: str) -> dict[str, Tensor]:
    state = loaded.get('state_dict', loaded.get('model', loaded)) if isinstance(loaded, dict) else {}
    names = {name.removeprefix('module.'): value for name, value in state.items()}
    prefix += '.' if prefix and not prefix.endswith('.') else ''
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


def _fits(given: Tensor | None, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape
