"""Loading and checks of pretrained weight files.

mmengine loads such a file with `strict=False` and only logs mismatches. If the file belongs to another network, or has
the tensor names of another library, the backbone would be trained from random weights without an error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.model import PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.remote import ADDRESS, refuse_remote
from rass_mm.engine.structure import weights_of
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
"""Minimum fraction of a module's parameters that its file must contain.

It is less than 1, because mmseg's Swin, for example, has norm layers that the published classifiers do not have.
"""


def check_pretrained(model: nn.Module, fine_tune: str | None = None) -> None:
    """Checks the files named by `init_cfg=dict(type='Pretrained', checkpoint=FILE)` in the submodules of a model.

    Args:
        model: the model.
        fine_tune: value of the setting `fine_tune`, if the config has it, for the message.

    Raises:
        CheckpointError: a file is missing, is given as a URL, cannot be read safely, or does not contain the tensors
            of its submodule.
    """
    for name, part in model.named_modules():
        config = getattr(part, 'init_cfg', None)
        if not isinstance(config, dict) or config.get('type') != 'Pretrained':
            continue
        key = f'model.{name.removeprefix("module.")}'.rstrip('.')
        own = fine_tune is not None and str(fine_tune) == config['checkpoint']
        _check_file(part, config, key, 'fine_tune' if own else f'{key}.init_cfg.checkpoint')


@WEIGHT_INITIALIZERS.register_module(name='Pretrained', force=True)
class Pretrained(PretrainedInit):
    """`PretrainedInit` of mmengine that supports a `TrainedStateMixin` and can exclude tensors from loading (`fresh`).

    Args:
        checkpoint: path of a local file.
        prefix: name of the module in the file, e.g. 'backbone'. None or '' loads the whole file.
        map_location: device to which the file is loaded.
        fresh: names of the module's tensors that are not loaded and keep their initial values.
    """

    def __init__(
        self, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu', fresh: Sequence[str] = ()
    ) -> None:
        super().__init__(checkpoint, (prefix or '').strip('.') or None, map_location)
        self.fresh = list(fresh)

    def __call__(self, module: nn.Module) -> None:
        """Loads the file into a module.

        Raises:
            CheckpointError: the file is missing or damaged, or was written for another base, merged adapter, class list
                or architecture than those of the module.
        """
        trained = isinstance(module, TrainedStateMixin)
        if not self.fresh and (not trained or self.prefix is None):
            super().__call__(module)
            return
        print_log(f'Load {self.prefix or "model"} from {self.checkpoint}, except the tensors {self.fresh}.', 'current')
        loaded = load_local(self.checkpoint, self.map_location)
        found, own = _tensors(loaded, self.prefix or '', self.checkpoint), module.state_dict()
        whole = _tensors(loaded, '')
        if trained and PROVENANCE in whole:
            check_provenance(read_provenance(whole[PROVENANCE]), module.provenance, classes=False)
        kept = {key: own[key] for key in own if key in self.fresh or key.rpartition('.')[2] == PROVENANCE}
        given = {key: value for key, value in found.items() if key not in self.fresh} | kept
        check_tensors(tensors_of(given), tensors_of(own), f'{self.checkpoint} does not fit; nothing was loaded')
        module.load_state_dict(given)
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=self._get_init_info())


def _check_file(part: nn.Module, config: dict[str, Any], key: str, setting: str) -> None:
    path, option = config['checkpoint'], f'--cfg-options {setting}=FILE'
    if ADDRESS.match(str(path)):
        refuse_remote(str(path))
    if not Path(path).expanduser().is_file():
        raise CheckpointError(
            f'{key} starts from the pretrained weights {path}, but this file does not exist and nothing is downloaded '
            f'automatically. Put the file there (see configs/baselines/README.md for its source), set another path '
            f'with {option}, or train from random weights with --cfg-options {key}.init_cfg=None.'
        )
    trained = isinstance(part, TrainedStateMixin)
    own = tensors_of(part.state_dict()) if trained else dict(part.named_parameters())
    given, fresh = _tensors(load_local(path, 'cpu'), config.get('prefix') or '', path), config.get('fresh') or ()
    missing = [name for name, value in own.items() if name not in fresh and not _fits(given.get(name), value)]
    if len(missing) > (1 - NEEDED) * len(own):
        raise CheckpointError(
            f'{path} does not match {key} ({type(part).__name__}): {len(missing)} of {len(own)} tensors are missing or '
            f'have another shape, e.g. {missing[0]}. The file contains {", ".join(list(given)[:3])}, ... Use {option} '
            f'to set a file for exactly this network, with the tensor names of mmsegmentation. If the file was '
            'published by the authors of the network, convert it first, see configs/baselines/README.md.'
        )


def _tensors(loaded: Any, prefix: str, file: str = 'The checkpoint') -> dict[str, Tensor]:
    named = 'state_dict' not in loaded and isinstance(loaded.get('model'), Mapping)
    state = loaded['model'] if named else weights_of(loaded, file)
    names = {name.removeprefix('module.'): value for name, value in state.items()}
    prefix = prefix.strip('.')
    prefix += '.' if prefix else ''
    return {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}


def _fits(given: Tensor | None, own: Tensor) -> bool:
    return isinstance(given, Tensor) and given.shape == own.shape
