"""Models of the variants. Each model is built once, and variants share weights where possible."""

import copy
import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.registry import MODELS
from torch import Tensor, nn

from rass_mm.analysis.speed.stages import extractor_of, replaced
from rass_mm.analysis.speed.variants import Variant
from rass_mm.config.building import explained
from rass_mm.segmentation import FileRestorer
from rass_mm.segmentation.prompts import build_prompt


class Models:
    """Builds models on demand and caches them.

    Variants with the same checkpoint and the same model config (except for test settings and the prompt of a RASS
    model) share one model if their dtype and memory layout are equal. If these differ, each variant has its own model,
    but the models share all tensors that the conversion does not change.

    Args:
        device: device of the models.
        seed: seed of the random weights.
    """

    def __init__(self, device: torch.device, seed: int = 0) -> None:
        self.device, self.seed = device, seed
        self._read: dict[str, nn.Module] = {}
        self._fitted: dict[tuple, nn.Module] = {}
        self._prompts: dict[tuple, nn.Module] = {}

    def fitted(self, variant: Variant, config: Config) -> nn.Module:
        """Returns the model of a variant in eval mode and in the variant's dtype and memory layout.

        The test settings of the variant are not applied, because variants with other settings may share the model.
        """
        key = weights_key(variant, config.model)
        how = (key, variant.dtype, variant.channels_last)
        if how not in self._fitted:
            if key not in self._read:
                self._read[key] = self._build(variant, config)
            plain = self._read[key]
            as_read = variant.dtype == 'float32' and not variant.channels_last
            self._fitted[how] = plain if as_read else sharing_copy(plain, variant)
        return self._fitted[how]

    def prompt(self, variant: Variant, config: Config, model: nn.Module) -> nn.Module:
        """Returns the prompt module of a variant whose model is a RASS model."""
        settings = config.model.get('prompt') or {'type': 'ClassTokens'}
        key = (weights_key(variant, config.model), json.dumps(settings, sort_keys=True, default=str))
        if key not in self._prompts:
            prompt = build_prompt(dict(settings), model.backbone.base, model.classes).to(self.device).eval()
            if hasattr(getattr(prompt, 'tagger', None), 'training'):
                prompt.tagger.training = True  # a tagger in eval mode caches the last image
            self._prompts[key] = prompt
        return self._prompts[key]

    def forget_sources(self) -> None:
        """Drops the models that were built only to be copied, to free their memory."""
        self._read.clear()

    def _build(self, variant: Variant, config: Config) -> nn.Module:
        init_default_scope(config.get('default_scope', 'mmseg'))
        torch.manual_seed(self.seed)
        with explained(config, 'model'):
            model = revert_sync_batchnorm(MODELS.build(config.model))
        if variant.checkpoint is not None:
            load_checkpoint(model, variant.checkpoint, map_location='cpu')
        return model.to(self.device).eval()


def weights_key(variant: Variant, model: ConfigDict) -> str:
    """Returns a key that is equal for variants with the same weights."""
    model = copy.deepcopy(model.to_dict())
    parts = [model, model['segmentor']] if model['type'] == 'RestoreThenSegment' else [model]
    for part in parts:
        part.pop('test_cfg', None)
        if part['type'] == 'RASS':
            part.pop('prompt', None)
    if isinstance(model.get('restorer'), dict):
        model['restorer'].pop('window_batch', None)
    return json.dumps([model, variant.checkpoint], sort_keys=True, default=str)


def sharing_copy(model: nn.Module, variant: Variant) -> nn.Module:
    """Returns a copy of `model` in the variant's dtype and memory layout. Both share all unchanged tensors."""
    shared = {id(tensor): tensor for module in everything(model) for tensor in module_tensors(module)}
    twin = copy.deepcopy(model, shared)
    # By default a conversion changes the parameters in place, which would also change `model`.
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        for part in cast_parts(twin):
            part.to(getattr(torch, variant.dtype))
        if variant.channels_last:
            twin.to(memory_format=torch.channels_last)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
    return twin


def everything(model: nn.Module) -> list[nn.Module]:
    """Returns the model and, if it has one, its restorer, which is not a registered submodule."""
    return [model, model.restorer] if hasattr(model, 'restorer') else [model]


def module_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yields all parameters and buffers of a module."""
    yield from module.parameters()
    yield from module.buffers()


def cast_parts(model: nn.Module) -> list[nn.Module]:
    """Returns the modules that store their weights in the variant's dtype and compute in it.

    For a restorer, this is the whole model; for a RASS model, the backbone, which contains the autoencoder and UNet.
    The rest of a segmentor keeps float32 weights and runs under autocast, as in training.
    """
    if hasattr(model, 'restorer'):
        restoring = [model.restorer] if isinstance(model.restorer, FileRestorer) else []
        return restoring + cast_parts(model.segmentor)
    if hasattr(model, 'generator'):
        return [model]
    return [model.backbone] if extractor_of(model) is not None else []


@contextmanager
def in_precision(model: nn.Module, dtype: str, device: torch.device) -> Iterator[None]:
    """Context manager. Inside the block, a model from `sharing_copy` runs in `dtype`."""
    if dtype == 'float32' or hasattr(model, 'generator'):
        yield
        return
    extractor = extractor_of(getattr(model, 'segmentor', model))
    points = [(extractor.vae, 'encode'), (extractor.unet, 'forward')] if extractor is not None else []
    with ExitStack() as stack:
        for owner, method in points:
            stack.enter_context(replaced(owner, method, lambda run: _casting(run, getattr(torch, dtype), device)))
        stack.enter_context(torch.autocast(device.type, getattr(torch, dtype)))
        yield


def _casting(run: Any, dtype: torch.dtype, device: torch.device) -> Any:
    def cast(value: Any) -> Any:
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def call(*args: Any, **kwargs: Any) -> Any:
        # Autocast would run group norms in float32.
        with torch.autocast(device.type, enabled=False):
            return run(*map(cast, args), **{key: cast(value) for key, value in kwargs.items()})

    return call


def settings(model: nn.Module, config: ConfigDict) -> list[tuple[Any, str, Any]]:
    """Returns the attributes to set on a shared model for a variant, as (owner, attribute name, value)."""
    if hasattr(model, 'restorer'):
        inner = settings(model.segmentor, config.segmentor)
        if not isinstance(model.restorer, FileRestorer):
            return inner
        return [(model.restorer, 'window_batch', config.restorer.get('window_batch', 1)), *inner]
    test_cfg = config.get('test_cfg') or {}
    if hasattr(model, 'generator'):
        return [(model, 'test_cfg', {'mode': 'restore', **test_cfg})]
    return [(model, 'test_cfg', ConfigDict(test_cfg))]


def count_parameters(tensors: Iterable[Tensor]) -> int:
    """Counts the elements of all parameters. A parameter that occurs several times is counted once."""
    return sum(tensor.numel() for tensor in {id(tensor): tensor for tensor in tensors}.values())
