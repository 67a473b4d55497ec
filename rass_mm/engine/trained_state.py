"""State dicts that hold what was trained and say what it was trained on.

A diffusion backbone has 900 M frozen parameters and 4 M trained ones. Checkpoints keep the trained ones, and an extra
state with the identity of the frozen rest, so that loading them onto another base is an error and not noise.
"""

import json
from typing import Any

import torch
from torch import Tensor, nn

from rass_mm.compat import recorded_versions
from rass_mm.errors import CheckpointError

OWN_CONFIG = (
    'Use the config it was trained with (it is stored in the checkpoint under meta.cfg and beside it in the work dir).'
)


class TrainedStateMixin(nn.Module):
    """Gives a module a state dict of trained tensors plus provenance; mix it in before the framework's base class.

    The module must have a property `provenance`: a JSON-able dict with keys `base` (an identity), `merged_adapters`
    and `classes`. It is stored as UTF-8 bytes in a uint8 tensor, because checkpoint tools expect tensors only.

    Frozen parameters and all buffers below modules without any trained parameter are left out of `state_dict()`;
    loading checks provenance, names and shapes before any value is copied, whatever `strict` says.
    """

    provenance: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_state_dict_post_hook(_keep_trained)
        self.register_load_state_dict_post_hook(_forget_frozen)

    def get_extra_state(self) -> Tensor:
        """Provenance as a uint8 tensor."""
        return pack_provenance({**self.provenance, 'versions': recorded_versions()})

    def set_extra_state(self, state: Tensor) -> None:
        """Compares a checkpoint's provenance with this model's.

        Raises:
            CheckpointError: another base, other merged adapters or another class list; both are shown.
        """
        check_provenance(read_provenance(state), self.provenance)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Called before the children's, and by torch's and mmengine's loaders alike.
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if '_extra_state' in given:
            self.set_extra_state(given.pop('_extra_state'))
        check_tensors(given, {key: value for key, value in self.state_dict().items() if key != '_extra_state'})
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def pack_provenance(record: dict[str, Any]) -> Tensor:
    """A JSON-able dict as a uint8 tensor, see `read_provenance`."""
    return torch.frombuffer(bytearray(json.dumps(record, sort_keys=True).encode()), dtype=torch.uint8)


def read_provenance(state: Tensor) -> dict[str, Any]:
    """The dict that `TrainedStateMixin.get_extra_state` packed."""
    return json.loads(bytes(state.cpu().to(torch.uint8).tolist()).decode())


def check_provenance(found: dict[str, Any], own: dict[str, Any]) -> None:
    """Raises a CheckpointError that shows both sides where a checkpoint was trained on something else."""
    same_base = all(found['base'][key] == own['base'][key] for key in ('config', 'weights'))
    if not same_base and own['base']['weights'] != 'none':
        raise CheckpointError(
            f'The checkpoint was trained on another base.\n  checkpoint: {found["base"]}\n  this model: {own["base"]}\n'
            f'Set model.backbone.base (a restorer: model.base) to the folder it was trained on.'
        )
    if found['merged_adapters'] != own['merged_adapters']:
        raise CheckpointError(
            f'The checkpoint was trained with other adapters merged into the base.\n'
            f'  checkpoint: {found["merged_adapters"]}\n'
            f'  this model: {own["merged_adapters"]}\nSet model.backbone.scr_adapter to the file it was trained with.'
        )
    if found['classes'] != own['classes']:
        raise CheckpointError(
            f'The checkpoint has another class list.\n'
            f'  checkpoint: {len(found["classes"])} classes, {_few(found["classes"])}\n'
            f'  this model: {len(own["classes"])} classes, {_few(own["classes"])}\n'
            f'Use the config it was trained with, or set model.classes and model.decode_head.num_classes to its list.'
        )


def _few(names: list[str]) -> str:
    return ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')


def check_tensors(
    given: dict[str, Tensor],
    own: dict[str, Tensor],
    what: str = 'The checkpoint does not fit this model; nothing was loaded',
    remedy: str = OWN_CONFIG,
) -> None:
    """Raises a CheckpointError that lists missing, unknown and misshapen tensors.

    Args:
        given: what a file holds.
        own: what is needed.
        what: how the message begins.
        remedy: how it ends.
    """
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
        for key in own.keys() & given.keys()
        if given[key].shape != own[key].shape
    ]
    faults = [('missing', missing), ('unknown', unknown), ('of another shape', sorted(shapes))]
    lines = [f'  {len(names)} {what}: {_few(names)}' for what, names in faults if names]
    if lines:
        raise CheckpointError(f'{what}.\n' + '\n'.join(lines) + f'\n{remedy}')


def frozen_keys(module: nn.Module) -> set[str]:
    """Names of frozen parameters, and of buffers of modules that hold parameters but no trained one."""
    keys = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for prefix, child in module.named_modules():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            keys |= {f'{prefix}.{name}' if prefix else name for name, _ in child.named_buffers()}
    return keys


def _keep_trained(module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict) -> None:
    for key in frozen_keys(module):
        state.pop(prefix + key, None)


def _forget_frozen(module: nn.Module, incompatible: Any) -> None:
    """torch and mmengine both count what a checkpoint lacks; the frozen part is meant to be lacking."""
    frozen = frozen_keys(module)
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.endswith(tuple(frozen))]
