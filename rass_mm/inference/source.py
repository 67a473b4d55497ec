"""Segmentor that is read but not yet built: checkpoint, config, and how the model is built from them."""

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from torch import nn

from rass_mm.config.building import explained
from rass_mm.config.kinds import name_types
from rass_mm.config.settings import check_settings
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.engine.ready import Preparation, prepare
from rass_mm.engine.structure import weights_of
from rass_mm.engine.trained_state import TrainedStateMixin, check_tensors, tensors_of
from rass_mm.errors import BaseFolderError, ConfigError, PackError, shown
from rass_mm.files.hashing import content_hash, json_sha256
from rass_mm.files.packs.reading import AGAIN, Pack
from rass_mm.files.packs.schema import CONFIG, PACK
from rass_mm.inference.classes import classes_of
from rass_mm.inference.modes import SegmentOptions
from rass_mm.inference.precision import default_preparation
from rass_mm.inference.segmentor import Segmentor, inner_segmentor
from rass_mm.segmentation import RestoreThenSegment
from rass_mm.segmentation.fitting import needed, surplus_tensors, warn_of_surplus

ADAPTERS = ('scr_adapter', 'adapter')
"""Keys of a model that name an adapter file."""
BASE_HINT = (
    'The config of a checkpoint contains the path that the base had in training. Pass the folder of the base with '
    '--base (in Python: base=...), or set RASS_MM_BASES to the folder that contains it.'
)


@dataclass(frozen=True)
class SegmentorSource:
    """Checkpoint and config of a segmentor that is not yet built.

    Args:
        checkpoint: path of the checkpoint.
        loaded: content of the checkpoint.
        config: config of the segmentor.
        pack: the model pack that contains both, or None.
        settings: config of the model without the paths of this machine, if it is in a pack.
    """

    checkpoint: Path
    loaded: dict[str, Any]
    config: Config
    pack: Pack | None = None
    settings: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """Returns hashes that identify the weights, the model and the test pipeline in a manifest."""
        model = self.settings or self.config.model.to_dict()
        settings = json.loads(json.dumps([model, self.steps()], default=str))
        adapters = [
            Path(part[key]) for part in nested(self.config.model) for key in ADAPTERS if isinstance(part.get(key), str)
        ]
        hashes = [content_hash(adapter) for adapter in adapters]
        return {'checkpoint': content_hash(self.checkpoint), 'config': json_sha256(settings)[:16], 'adapters': hashes}

    def default_preparation(self, device: torch.device) -> Preparation | None:
        """Returns how the model is prepared by default, or None for not at all, see `default_preparation`.

        Other mmseg segmentors than RASS compute in float32, also behind a restorer, because they then return the same
        labels as in mmseg. In half precision, they run under autocast, which is slower than float32 for small networks
        on a CPU.
        """
        init_default_scope(self.config.get('default_scope') or 'mmseg')
        kind = self.config.model.get('type')
        if isinstance(kind, str):
            with suppress(ConfigError), explained(self.config, 'model'):  # `build` reports an unknown type
                kind = MODELS.get(kind)
        if not hasattr(kind, 'prepare_prediction'):
            return None
        parts = list(nested(self.config.model))
        bases = [part['base'] for part in parts if part.get('base')]
        adapters = [part['adapter'] for part in parts if isinstance(part.get('adapter'), str)]
        found = default_preparation(device, bases, adapters)
        return Preparation('float32') if found and kind is RestoreThenSegment else found

    def build(
        self, device: torch.device, how: Preparation | None = None, options: SegmentOptions | None = None
    ) -> Segmentor:
        """Builds the model, loads its weights, moves it to a device and prepares it for prediction.

        Args:
            device: the device.
            how: settings of the preparation; None does not prepare the model, which computes in float32.
            options: see `SegmentOptions`; None uses its defaults.

        Raises:
            BaseFolderError, AdapterError, ConfigError: the base, an adapter or the config cannot be used.
            CheckpointError: the weights do not fit the config.
        """
        init_default_scope(self.config.get('default_scope') or 'mmseg')
        try:
            check_settings(self.config, 'model')
            with explained(self.config, 'model'):
                model = MODELS.build(without_pretrained(self.config))
        except ConfigError as error:
            raise ConfigError(
                f'The model of {self._place} cannot be built: {error} Pass the config that the model was trained with. '
                'Its custom_imports must list the module that registers the model.'
            ) from error
        except BaseFolderError as error:
            raise BaseFolderError(f'{error}\n{BASE_HINT}') from None
        if not isinstance(model, BaseSegmentor):
            raise ConfigError(
                f'{self.checkpoint} contains a {type(model).__name__}, which is not a segmentor. To restore images, '
                'use rass-mm restore (in Python: rass_mm.load_restorer).'
            )
        model = revert_sync_batchnorm(model)
        load_weights(model, self.loaded, self.checkpoint)
        names, palette = classes_of(inner_segmentor(model), self.loaded.get('meta') or {}, self.config)
        if self.pack is not None and len(names) != len(self.pack.manifest['classes']):
            raise PackError(
                f'{self.pack.path(PACK)} names {len(self.pack.manifest["classes"])} classes, but the model predicts '
                f'{len(names)}. {AGAIN}'
            )
        model = model.to(device).eval()
        return Segmentor(prepare(model, how) if how else model, self.steps(), names, palette, options)

    @property
    def _place(self) -> str:
        return str(self.pack.path(CONFIG)) if self.pack else 'the config'

    def steps(self) -> list[Any]:
        """Returns the configs of the steps of the test pipeline.

        Raises:
            ConfigError: they are not a list of mappings with a type.
        """
        leaves = leaf_paths(self.config.get('test_dataloader'), 'test_dataloader')
        found = [leaf.get('pipeline') for _, leaf in leaves]
        steps = next((pipeline for pipeline in (*found, self.config.get('test_pipeline')) if pipeline), None)
        steps = steps or [{'type': 'LoadImageFromFile'}, {'type': 'PackSegInputs'}]
        typed = isinstance(steps, list | tuple)
        wrong = [step for step in steps if not isinstance(step, Mapping) or 'type' not in step] if typed else [steps]
        if wrong:
            raise ConfigError(
                f'The test pipeline of {self._place} contains {shown(wrong[0])}, but it should be a list of steps with '
                "a type, such as {'type': 'PackSegInputs'}. Correct it."
            )
        return list(steps)

    def json_steps(self) -> list[dict[str, Any]]:
        """Returns the configs of the steps of the test pipeline as values of JSON, with classes by name.

        Raises:
            ConfigError: a setting of a step cannot be represented in JSON.
        """
        steps = copy.deepcopy([dict(step) for step in self.steps()])
        name_types(steps)
        try:
            return json.loads(json.dumps(steps))
        except TypeError as error:
            raise ConfigError(
                f'The test pipeline contains a setting that JSON cannot represent ({error}). Use numbers, strings, '
                'lists and mappings.'
            ) from None


def load_weights(model: nn.Module, loaded: dict[str, Any], checkpoint: Path) -> None:
    """Loads the weights of a checkpoint, and raises an error if they do not match the model completely.

    mmengine's loader would only log missing tensors, and the model would then predict with random weights. Further
    tensors are not loaded, and a warning names them, see `surplus_tensors`.

    Raises:
        CheckpointError: tensors are missing or have another shape.
    """
    given = weights_of(loaded, str(checkpoint))
    surplus = surplus_tensors(model, given)
    state = type(given)((name.removeprefix('module.'), value) for name, value in given.items() if name not in surplus)
    if not isinstance(model, TrainedStateMixin | RestoreThenSegment):  # those check names and shapes themselves
        own, tensors = tensors_of(model.state_dict()), tensors_of(state)
        what = f'{checkpoint} does not fit the model of its config; nothing was loaded'
        check_tensors(tensors, needed(own, tensors), what)
    if surplus:
        warn_of_surplus(surplus, str(checkpoint))
    load_state_dict(model, state, strict=False, logger='current')


def without_pretrained(config: Config) -> ConfigDict:
    """Returns the model's config with its data preprocessor and without `pretrained`, which the checkpoint replaces."""
    model = ConfigDict(config.model.to_dict())
    for part in nested(model):
        if part.get('pretrained'):
            part['pretrained'] = None
    if config.get('data_preprocessor') and not model.get('data_preprocessor'):
        model.data_preprocessor = config.data_preprocessor
    return model


def nested(value: Any) -> Iterator[dict[str, Any]]:
    """Yields a nested config and all dicts in it."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from nested(item)
