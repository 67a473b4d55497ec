"""Loading and checks of pretrained weight files.

mmengine loads such a file with `strict=False` and only logs mismatches. With the file of another network, or one with
the original tensor names, a backbone would train from random weights without an error.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.remote import refuse_remote
from rass_mm.engine.trained_state import (
    PROVENANCE,
    TrainedStateMixin,
    check_provenance,
    check_tensors,
    read_provenance,
    tensors_of,
)
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


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class Pretrained(PretrainedInit):
    """mmengine's initialization from a file, which also loads parts of a model with trained state.

    Args:
        checkpoint: a local file.
        prefix: name of the part of the model in the file, e.g. 'backbone'; None or empty for all of it.
        map_location: device on which the file is read.
        fresh: names of the module's tensors that keep their random start.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu', fresh: Sequence[str] = ()
    ) -> None:
        super().__init__(checkpoint, (prefix or '').strip('.') or None, map_location)
        self.fresh = list(fresh)

    def __call__(self, module: nn.Module) -> None:
        """Loads the file into a module.

        Raises:
            CheckpointError: the file is missing or damaged, or belongs to another base, adapter, class list or network.
        """
        trained = isinstance(module, TrainedStateMixin)
        if not self.fresh and (not trained or self.prefix is None):
            super().__call__(module)
            return
        print_log(f'load {self.prefix or "model"} from: {self.checkpoint}, without {self.fresh}', 'current')
        loaded = load_local(self.checkpoint, self.map_location)
        found, own = _tensors(loaded, self.prefix or ''), module.state_dict()
        whole = _tensors(loaded, '')
        if trained and PROVENANCE in whole:
            check_provenance(read_provenance(whole[PROVENANCE]), module.provenance, classes=False)
        kept = {key: own[key] for key in own if key in self.fresh or key.rpartition('.')[2] == PROVENANCE}
        given = {key: value for key, value in found.items() if key not in self.fresh} | kept
        check_tensors(tensors_of(given), tensors_of(own), f'{self.checkpoint} does not fit; nothing was loaded')
        module.load_state_dict(given)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


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
    trained = isinstance(part, TrainedStateMixin)
    own = tensors_of(part.state_dict()) if trained else dict(part.named_parameters())
    given, fresh = _tensors(load_local(path, 'cpu'), config.get('prefix') or ''), config.get('fresh') or ()
    missing = [name for name, value in own.items() if name not in fresh and not _fits(given.get(name), value)]
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
    prefix = prefix.strip('.')
    prefix += '.' if prefix else ''
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


def _fits(given: Tensor | None, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape
