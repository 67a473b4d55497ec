"""State dicts with trained tensors and their provenance.

A diffusion backbone has 900 M frozen and 4 M trained parameters. Checkpoints contain only the trained parameters and
the identity of the frozen ones. Loading a checkpoint with another base raises an error, because its predictions would
be wrong.
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import with_config
from torch import Tensor, nn
from typing_extensions import TypedDict

from rass_mm.errors import CheckpointError
from rass_mm.files.schemas import ALLOWED, BaseIdentity, checked
from rass_mm.versions import recorded_versions

PROVENANCE = '_extra_state'
"""Key under which torch stores the value of `get_extra_state` in a state dict, after the name of the module."""
OWN_CONFIG = (
    'Use the config that it was trained with, which is in its work dir and, under meta.cfg, in the checkpoint itself.'
)


OTHER = 'Use another checkpoint of the run, or one written by rass-mm train or rass-mm convert.'


@with_config(ALLOWED)
class Provenance(TypedDict):
    """Record in a checkpoint of what its tensors belong to."""

    base: BaseIdentity
    merged_adapters: list[dict[str, Any]]
    classes: list[str]


class TrainedStateMixin(nn.Module):
    """Mixin for modules whose state dict contains only the trained tensors and their provenance.

    In the list of base classes, the mixin must precede the base class of the framework. The module must have a property
    `provenance`, a JSON-serialisable dict with the keys `base` (see `DiffusionBase.identity`), `merged_adapters` and
    `classes`. It is stored as UTF-8 bytes in a uint8 tensor, because checkpoint tools expect only tensors.

    `state_dict()` excludes the parameters that are frozen when the constructor returns, and the buffers of modules
    whose parameters are all frozen. Freezing or copying the model later does not change which tensors are excluded, so
    averaged models, frozen copies and exports have the same tensors. If a parameter that was frozen is trained later,
    `state_dict()` raises an error. Loading checks the provenance, names and shapes before any value is copied, even
    with `strict=False`. If a submodule, such as the backbone, has this mixin too, only the outer module stores the
    provenance.
    """

    provenance: dict[str, Any]
    frozen_when_built: frozenset[str] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Makes the constructor of a subclass call `settle` when it ends.

        The constructor of the class itself ends after those of its base classes, so its call of `settle` is the last
        one and replaces the result of the others.
        """
        super().__init_subclass__(**kwargs)
        if '__init__' not in cls.__dict__:
            return
        build = cls.__init__

        @functools.wraps(build)
        def build_and_settle(self: TrainedStateMixin, *args: Any, **keywords: Any) -> None:
            build(self, *args, **keywords)
            self.settle()

        cls.__init__ = build_and_settle

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_state_dict_post_hook(_keep_trained)
        self.register_load_state_dict_post_hook(_forget_frozen)

    def settle(self) -> None:
        """Stores the names of the tensors that are currently frozen. From now on, `state_dict()` excludes them."""
        self.frozen_when_built = frozenset(frozen_keys(self))

    def get_extra_state(self) -> Tensor:
        """Returns the provenance and the versions of the installed packages, encoded as a uint8 tensor."""
        return pack_provenance({**self.provenance, 'versions': recorded_versions()})

    def set_extra_state(self, state: Tensor) -> None:
        """Checks that the provenance of a checkpoint is the same as that of this model.

        Raises:
            CheckpointError: the base, the merged adapters or the class list differ. The message shows both.
        """
        check_provenance(read_provenance(state), self.provenance)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        # Called before the submodules' own, by the loaders of both torch and mmengine.
        given = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        if PROVENANCE in given:
            self.set_extra_state(given[PROVENANCE])
        check_tensors(tensors_of(given), tensors_of(self.state_dict()))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def pack_provenance(record: dict[str, Any]) -> Tensor:
    """Encodes a JSON-serialisable dict as a uint8 tensor, which `read_provenance` decodes."""
    return torch.frombuffer(bytearray(json.dumps(record, sort_keys=True).encode()), dtype=torch.uint8)


def read_provenance(state: Any, name: str = 'The checkpoint') -> dict[str, Any]:
    """Decodes a uint8 tensor from `pack_provenance` to the dict.

    Args:
        state: the value in the state dict.
        name: the file of the checkpoint, for messages.

    Raises:
        CheckpointError: the value is not such a tensor, or the record lacks a key or has values of another type.
    """
    if not isinstance(state, Tensor) or state.dtype is not torch.uint8 or state.ndim != 1:
        kind = f'{state.dtype} tensor' if isinstance(state, Tensor) else type(state).__name__
        raise CheckpointError(f'{name}: {PROVENANCE} is a {kind}, but it must be a uint8 tensor. {OTHER}')
    try:
        record = json.loads(state.cpu().numpy().tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f'{name}: its record {PROVENANCE} is not JSON ({error}). {OTHER}') from None
    return checked(record, Provenance, f'{name}, record {PROVENANCE}', OTHER, CheckpointError)


def is_record(value: Any) -> bool:
    """Returns whether `read_provenance` can decode a value. Modules of other packages may store other values."""
    try:
        read_provenance(value)
    except CheckpointError:
        return False
    return True


def check_provenance(found: dict[str, Any], own: dict[str, Any], classes: bool = True) -> None:
    """Raises a `CheckpointError` if a checkpoint and a model differ in their provenance. The message shows both.

    Args:
        found: provenance of the checkpoint.
        own: provenance of the model.
        classes: whether the class lists must be equal as well.
    """
    same_base = all(found['base'][key] == own['base'][key] for key in ('config', 'weights'))
    if not same_base and own['base']['weights'] != 'none':
        raise CheckpointError(
            f'The checkpoint was trained on another base.\n  checkpoint: {found["base"]}\n  this model: {own["base"]}\n'
            f'Set model.backbone.base (for a restorer: model.base) to the folder that the checkpoint was trained on.'
        )
    if found['merged_adapters'] != own['merged_adapters']:
        raise CheckpointError(
            f'The checkpoint was trained with other adapters merged into the base.\n'
            f'  checkpoint: {found["merged_adapters"]}\n'
            f'  this model: {own["merged_adapters"]}\n'
            f'Set model.backbone.scr_adapter to the adapter file that the checkpoint was trained with, or use the '
            f'config in the work dir of its training.'
        )
    if classes and found['classes'] != own['classes']:
        raise CheckpointError(
            f'The class list of the checkpoint differs from that of this model.\n'
            f'  checkpoint: {len(found["classes"])} classes, {_few(found["classes"])}\n'
            f'  this model: {len(own["classes"])} classes, {_few(own["classes"])}\n'
            f'Use the config that the checkpoint was trained with, or a data set with its classes. To train a '
            f'segmentor on other classes from this checkpoint, set fine_tune=CHECKPOINT in the config or in '
            f'--cfg-options, instead of load_from or an init_cfg. fine_tune loads all tensors except those that depend '
            f'on the classes.'
        )


def tensors_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors of a state dict without the provenance."""
    return {key: value for key, value in state.items() if key.rpartition('.')[2] != PROVENANCE}


def _few(names: list[str]) -> str:
    return ', '.join(names[:6]) + (', ...' if len(names) > 6 else '')


def check_tensors(
    given: dict[str, Tensor],
    own: dict[str, Tensor],
    what: str = 'The checkpoint does not fit this model; nothing was loaded',
    remedy: str = OWN_CONFIG,
) -> None:
    """Raises a `CheckpointError` if the names or shapes of two sets of tensors differ. The message lists them.

    Args:
        given: name -> tensor in a file.
        own: name -> required tensor. Its shape is used, and whether it has floating-point values.
        what: first sentence of the message, without the period.
        remedy: last sentence of the message.
    """
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
        for key in own.keys() & given.keys()
        if given[key].shape != own[key].shape
    ]
    faults = [('missing', missing), ('unknown', unknown), ('of another shape', sorted(shapes))]
    kinds = [
        f'{key} {given[key].dtype} instead of {own[key].dtype}'.replace('torch.', '')
        for key in own.keys() & given.keys()
        if given[key].is_floating_point() != own[key].is_floating_point()
    ]
    faults.append(('of another type', sorted(kinds)))
    lines = [f'  {len(names)} {what}: {_few(names)}' for what, names in faults if names]
    if lines:
        raise CheckpointError(f'{what}.\n' + '\n'.join(lines) + f'\n{remedy}')


def frozen_keys(module: nn.Module) -> set[str]:
    """Returns the names of all frozen parameters, and of the buffers of modules whose parameters are all frozen."""
    keys = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    for prefix, child in module.named_modules():
        parameters = list(child.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            keys |= {f'{prefix}.{name}' if prefix else name for name, _ in child.named_buffers()}
    return keys


def _left_out(module: nn.Module) -> set[str]:
    """Returns the names that the state dict excludes: those of frozen tensors and of the provenance of submodules."""
    parts = [name for name, part in module.named_modules() if name and isinstance(part, TrainedStateMixin)]
    return module.frozen_when_built | {f'{name}.{PROVENANCE}' for name in parts}


def _check_still_frozen(module: nn.Module) -> None:
    named = module.named_parameters()
    trained = sorted(name for name, value in named if value.requires_grad and name in module.frozen_when_built)
    if trained:
        raise CheckpointError(
            f'{type(module).__name__} was built with frozen parameters that require gradients now, so its state dict '
            f'would not contain them: {_few(trained)}. Freeze them again, or set the trained parameters in the config, '
            "e.g. with model.backbone.train_parameters='unet'."
        )


def _keep_trained(module: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: dict) -> None:
    _check_still_frozen(module)
    for key in _left_out(module):
        state.pop(prefix + key, None)


def _forget_frozen(module: nn.Module, incompatible: Any) -> None:
    """Removes the names that the state dict excludes from the missing keys that torch and mmengine report."""
    left_out = tuple(_left_out(module))
    incompatible.missing_keys[:] = [key for key in incompatible.missing_keys if not key.endswith(left_out)]
