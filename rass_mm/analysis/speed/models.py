"""Models of the variants. Each model is built once, and variants share weights where possible."""

import copy
import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from mmseg.registry import MODELS
from torch import Tensor, nn

from rass_mm.analysis.speed.variants import Variant
from rass_mm.config.building import explained
from rass_mm.engine.ready import prepare, sharing_copy
from rass_mm.segmentation import FileRestorer
from rass_mm.segmentation.prompts import build_prompt


class Models:
    """Builds models on demand and caches them.

    Variants with the same checkpoint and the same model config (except for test settings and the prompt of a RASS
    model) share one model if they are prepared in the same way. Otherwise, each variant has its own model, but the
    models share all tensors that the preparation does not change.

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
        """Returns the model of a variant in eval mode, prepared as the variant says.

        The test settings of the variant are not applied, because variants with other settings may share the model.
        """
        key = weights_key(variant, config.model)
        if key not in self._read:
            self._read[key] = self._build(variant, config)
        plain = self._read[key]
        if variant.preparation is None:
            return plain
        prompt = self.prompt(variant, config, plain) if config.model.type == 'RASS' else None
        how = (key, id(prompt), variant.preparation)
        if how not in self._fitted:
            model = sharing_copy(plain)
            if prompt is not None:
                model.backbone.prompt = copy.deepcopy(prompt)  # it is marked as stored
            self._fitted[how] = prepare(model, variant.preparation)
        return self._fitted[how]

    def trained(self, variant: Variant, config: Config) -> int:
        """Returns the number of trained parameters of the model of a variant before it is prepared."""
        plain = self._read[weights_key(variant, config.model)]
        return count_parameters(parameter for parameter in plain.parameters() if parameter.requires_grad)

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


def everything(model: nn.Module) -> list[nn.Module]:
    """Returns the model and, if it has one, its restorer, which is not a registered submodule."""
    return [model, model.restorer] if hasattr(model, 'restorer') else [model]


def module_tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yields all parameters and buffers of a module."""
    yield from module.parameters()
    yield from module.buffers()


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
