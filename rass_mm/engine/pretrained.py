"""Checks of the weight files that parts of a model start from.

mmengine loads such a file with `strict=False` and only logs what does not fit: a backbone given another network's file,
or one that still has its authors' names, would train from random weights without an error.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.remote import refuse_remote
from rass_mm.errors import CheckpointError

NEEDED = 0.9
"""Share of a part's parameters that its file must have; mmseg's Swin, for one, adds norms that a classifier lacks."""


def check_pretrained(model: nn.Module) -> None:
    """Checks the files named by `init_cfg=dict(type='Pretrained', checkpoint=FILE)` in a model's parts.

    Raises:
        CheckpointError: a file is missing or not local, refused by the safe loader, or does not have the tensors of its
            part.
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
            f'there (configs/baselines/README.md says where it comes from), name yours by {option}, or train from '
            f'random weights by --cfg-options {key}.init_cfg=None.'
        )
    given, own = _tensors(load_local(path, 'cpu'), config.get('prefix') or ''), dict(part.named_parameters())
    missing = [name for name, value in own.items() if not _fits(given.get(name), value)]
    if len(missing) > (1 - NEEDED) * len(own):
        raise CheckpointError(
            f'{path} does not fit {key} ({type(part).__name__}): {len(missing)} of {len(own)} tensors are not in it or '
            f'have another shape, e.g. {missing[0]}; it holds {", ".join(list(given)[:3])}, ... Give the file of this '
            f'very network in the names of mmsegmentation by {option}; a file of its authors is first converted, see '
            'configs/baselines/README.md.'
        )


def _tensors(loaded: Any, prefix: str) -> dict[str, Tensor]:
    state = loaded.get('state_dict', loaded.get('model', loaded)) if isinstance(loaded, dict) else {}
    names = {name.removeprefix('module.'): value for name, value in state.items()}
    prefix += '.' if prefix and not prefix.endswith('.') else ''
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


def _fits(given: Tensor | None, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape
