"""A trained segmentor for photos: one object that is loaded once and predicts on files, arrays and Pillow images."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import load_state_dict
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS, TRANSFORMS
from torch import nn

from rass_mm.config import config_from_checkpoint, load_config
from rass_mm.datasets.classes import follow_classes, leaf_datasets
from rass_mm.devices import DTYPES, chosen_device
from rass_mm.engine.checkpoints import load_local
from rass_mm.engine.trained_state import TrainedStateMixin, check_tensors, tensors_of
from rass_mm.errors import BaseFolderError, CheckpointError, ConfigError, DataError
from rass_mm.files.hashing import content_hash, json_sha256
from rass_mm.files.integrity import MAX_PIXELS
from rass_mm.files.tensors import first_line
from rass_mm.inference.classes import Palette, classes_of
from rass_mm.inference.labelling import Maps, Watch, label_image
from rass_mm.inference.modes import ModeChoice, SegmentOptions
from rass_mm.inference.photos import Photo, as_bgr
from rass_mm.inference.results import MOST_8_BIT_CLASSES, Segmentation
from rass_mm.segmentation import RestoreThenSegment

Bases = str | os.PathLike | Sequence[str | os.PathLike]
BASE_HINT = (
    'The config of a checkpoint names its base by the path it had in training. Pass the folder of the base with --base '
    '(in Python: base=...), or set RASS_MM_BASES to the folder that holds it.'
)


class Segmentor:
    """A segmentor of mmseg with its test pipeline, class names and options, as returned by `load_segmentor`.

    Args:
        model: the model, in eval mode on its device.
        steps: configs of its test pipeline.
        classes: name of each class.
        palette: RGB colour of each class.
        dtype: 'float32', or a precision for autocast.
        options: see `SegmentOptions`.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: Sequence[Mapping[str, Any]],
        classes: Sequence[str],
        palette: Palette,
        dtype: str = 'float32',
        options: SegmentOptions | None = None,
    ) -> None:
        self.model, self.classes, self.palette, self.dtype = model, list(classes), palette, dtype
        self.backend, self.to_float32, self.steps = _built(steps)
        self.use(options or SegmentOptions())

    def use(self, options: SegmentOptions) -> None:
        """Sets the options of the following predictions."""
        self.options = options
        self.choice = ModeChoice(getattr(self.model, 'segmentor', self.model), options)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def restores(self) -> bool:
        """Whether the model restores images before it segments them."""
        return isinstance(self.model, RestoreThenSegment)

    def predict(
        self, images: Photo | Sequence[Photo], max_pixels: int = MAX_PIXELS
    ) -> Segmentation | list[Segmentation]:
        """Segments one image, or each image of a list.

        The label map has the size of the image, turned upright by its EXIF orientation. It equals that of mmseg's
        `inference_model`, if both use the same mode.

        Args:
            images: an image file, an array, or an image of Pillow; or a list of them. Arrays are RGB, not BGR as in
                mmseg: (H, W, 3) or grey (H, W), uint8, uint16, or float32 in [0, 1].
            max_pixels: largest number of pixels of a file, see `read_picture`.

        Raises:
            DataError: an image cannot be read, the network fails on it, or memory is too small for it.
        """
        if isinstance(images, list | tuple):
            return [self.predict(image, max_pixels) for image in images]
        path = os.fspath(images) if isinstance(images, str | os.PathLike) else None
        return self.segment(as_bgr(images, max_pixels, self.backend), path)

    def segment(self, image: np.ndarray, path: str | None = None, watch: Watch | None = None) -> Segmentation:
        """Segments an image (H, W, 3), uint8 BGR; `watch` is called with the finished fraction.

        Raises:
            DataError: the network fails on the image, or memory is too small for it.
        """
        try:
            with torch.autocast(self.device.type, getattr(torch, self.dtype), enabled=self.dtype != 'float32'):
                data = self._prepared(image, path)
                maps = label_image(self.model, data, self.choice, self.options.confidence, watch)
        except (RuntimeError, MemoryError) as error:  # the errors of networks and of memory, CUDA's included
            raise _failure(image, error) from error
        return self._result(image, maps)

    def _prepared(self, image: np.ndarray, path: str | None) -> dict[str, Any]:
        """Returns the output of the test pipeline for an image, as a batch of one."""
        size = image.shape[:2]
        results: Any = {'img_path': path, 'img': image, 'img_shape': size, 'ori_shape': size}
        results |= {'reduce_zero_label': False, 'seg_fields': []}
        if self.to_float32:
            results['img'] = image.astype(np.float32)
        for step in self.steps:
            results = step(results)
        if not isinstance(results, dict) or 'inputs' not in results:
            raise ConfigError("The test pipeline must end with a step that packs one image, such as 'PackSegInputs'.")
        return {'inputs': [results['inputs']], 'data_samples': [results['data_samples']]}

    def _result(self, image: np.ndarray, maps: Maps) -> Segmentation:
        kind = np.uint8 if len(self.classes) <= MOST_8_BIT_CLASSES else np.uint16
        restored = None if maps.restored is None else maps.restored[..., ::-1]
        labels = maps.labels.astype(kind)
        return Segmentation(labels, self.classes, self.palette, image[..., ::-1], maps.confidence, restored)


def _failure(image: np.ndarray, error: Exception) -> DataError:
    size = f'{image.shape[1]}x{image.shape[0]} pixels'
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or 'memory' in str(error):
        return DataError(
            f'Too little memory for an image of {size}. Use windows (--mode windows), smaller ones (--window), or '
            'fewer at a time (--batch-size).'
        )
    return DataError(f'The network fails on an image of {size} ({first_line(error)}).')


def _built(steps: Sequence[Mapping[str, Any]]) -> tuple[str, bool, list[Any]]:
    """Returns the image decoder, whether images become float32, and the other steps without those that load labels."""
    backend, to_float32, built = 'cv2', False, []
    for step in steps:
        kind = TRANSFORMS.get(step['type']) if isinstance(step['type'], str) else step['type']
        if kind is None:
            raise ConfigError(f'The test pipeline names {step["type"]!r}, which is not registered.')
        if issubclass(kind, LoadImageFromFile):
            if step.get('color_type', 'color') != 'color':
                raise ConfigError(f"The test pipeline loads {step['color_type']!r} images. Only 'color' is supported.")
            backend, to_float32 = step.get('imdecode_backend', 'cv2'), step.get('to_float32', False)
        elif not issubclass(kind, LoadAnnotations):
            built.append(TRANSFORMS.build(step))
    return backend, to_float32, built


@dataclass(frozen=True)
class SegmentorSource:
    """A checkpoint and its config, read but not yet built.

    Args:
        checkpoint: the file.
        loaded: its content.
        config: the config.
    """

    checkpoint: Path
    loaded: dict[str, Any]
    config: Config

    def identity(self) -> dict[str, Any]:
        """Returns hashes that identify weights, model and test pipeline in a manifest."""
        settings = json.loads(json.dumps([self.config.model.to_dict(), self._steps()], default=str))
        adapters = [
            Path(part[key])
            for part in _dicts(self.config.model)
            for key in ('scr_adapter', 'adapter')
            if isinstance(part.get(key), str)
        ]
        hashes = [content_hash(adapter) for adapter in adapters]
        return {'checkpoint': content_hash(self.checkpoint), 'config': json_sha256(settings)[:16], 'adapters': hashes}

    def build(self, device: torch.device, dtype: str = 'float32', options: SegmentOptions | None = None) -> Segmentor:
        """Builds the model, loads its weights and moves it to a device.

        Raises:
            BaseFolderError, AdapterError, ConfigError: the base, an adapter or the config cannot be used.
            CheckpointError: the weights do not fit the config.
        """
        init_default_scope(self.config.get('default_scope') or 'mmseg')
        try:
            model = MODELS.build(_without_pretrained(self.config))
        except BaseFolderError as error:
            raise BaseFolderError(f'{error}\n{BASE_HINT}') from None
        except (KeyError, TypeError) as error:  # mmengine's errors for an unknown type and unknown arguments
            raise ConfigError(
                f'The model of the config cannot be built: {first_line(error)}. Pass the config it was trained with. '
                'Its custom_imports must name the module that registers the model.'
            ) from error
        if not isinstance(model, BaseSegmentor):
            raise ConfigError(
                f'{self.checkpoint} holds a {type(model).__name__}, which is not a segmentor. To restore images, use '
                'rass-mm restore (rass_mm.load_restorer).'
            )
        model = revert_sync_batchnorm(model)
        load_weights(model, self.loaded, self.checkpoint)
        names, palette = classes_of(_inner(model), self.loaded.get('meta') or {}, self.config)
        return Segmentor(model.to(device).eval(), self._steps(), names, palette, dtype, options)

    def _steps(self) -> list[Any]:
        """Returns the test pipeline."""
        dataset = (self.config.get('test_dataloader') or {}).get('dataset')
        found = [leaf.get('pipeline') for _, leaf in leaf_datasets(dataset, 'dataset')] if dataset else []
        steps = next((pipeline for pipeline in (*found, self.config.get('test_pipeline')) if pipeline), None)
        return list(steps or [{'type': 'LoadImageFromFile'}, {'type': 'PackSegInputs'}])


def read_segmentor(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Config | None = None,
    base: Bases | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> SegmentorSource:
    """Reads a checkpoint and its config without building the model.

    Args:
        checkpoint: a file written by training or by `rass-mm convert`.
        config: a config, its file, or the name of a shipped one; None reads the config in the checkpoint, which is
            data and never executed, see `config_from_checkpoint`.
        base: base folder, or several in order of preference, instead of that in the config.
        overrides: config values by dotted key.

    Raises:
        CheckpointError: the checkpoint cannot be read safely.
        ConfigError: there is no config, it is refused, or it has no model or no base.
    """
    path = Path(checkpoint).expanduser()
    loaded = load_local(path, 'cpu')
    if not isinstance(loaded, dict):
        raise CheckpointError(f'{path} holds a {type(loaded).__name__}, but a checkpoint is a mapping of names.')
    if config is None:
        content = config_from_checkpoint(loaded, str(path))
    else:
        content = config if isinstance(config, Config) else load_config(config)
        follow_classes(content)
    if overrides:
        content.merge_from_dict(dict(overrides))
    if not isinstance(content.get('model'), Mapping):
        raise ConfigError(f'The config of {path} has no model. Pass the config it was trained with.')
    if base is not None:
        _set_base(content.model, base)
    return SegmentorSource(path, loaded, content)


def load_segmentor(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike | Config | None = None,
    base: Bases | None = None,
    device: str | torch.device | None = None,
    dtype: str | None = None,
    options: SegmentOptions | None = None,
) -> Segmentor:
    """Loads a trained segmentor for images of any size: any segmentor of mmseg.

    Args:
        checkpoint: see `read_segmentor`.
        config: see `read_segmentor`.
        base: see `read_segmentor`.
        device: e.g. 'cpu' or 'cuda:1'; None uses CUDA if it is available.
        dtype: 'float32' (None), whose labels equal those of mmseg, or 'bfloat16' or 'float16' for autocast.
        options: see `SegmentOptions`; None uses its defaults.

    Raises:
        CheckpointError, ConfigError, BaseFolderError, AdapterError: see `read_segmentor` and `SegmentorSource.build`.
    """
    dtype = dtype or 'float32'
    if dtype not in DTYPES:
        raise ConfigError(f'dtype is {dtype!r}, but it must be one of {", ".join(DTYPES)}.')
    place = chosen_device(None if device is None else str(device))
    return read_segmentor(checkpoint, config, base).build(place, dtype, options)


def load_weights(model: nn.Module, loaded: dict[str, Any], checkpoint: Path) -> None:
    """Loads the weights of a checkpoint, all of them.

    mmengine's loader only logs tensors that are missing, and the model would predict with random weights.

    Raises:
        CheckpointError: tensors are missing, unknown, or of another shape.
    """
    given = loaded.get('state_dict', loaded)
    state = type(given)((name.removeprefix('module.'), value) for name, value in given.items())
    if not isinstance(model, TrainedStateMixin | RestoreThenSegment):  # those check names and shapes themselves
        own = tensors_of(model.state_dict())
        needed = {key: value for key, value in own.items() if key in state or not key.endswith('num_batches_tracked')}
        check_tensors(dict(state), needed, f'{checkpoint} does not fit the model of its config; nothing was loaded')
    load_state_dict(model, state, strict=False, logger='current')


def _inner(model: nn.Module) -> nn.Module:
    return model.segmentor if isinstance(model, RestoreThenSegment) else model


def _without_pretrained(config: Config) -> ConfigDict:
    """Returns the model's config with its data preprocessor and without initial weights, which are not needed."""
    model = ConfigDict(config.model.to_dict())
    for part in _dicts(model):
        if part.get('pretrained'):
            part['pretrained'] = None
    if config.get('data_preprocessor') and not model.get('data_preprocessor'):
        model.data_preprocessor = config.data_preprocessor
    return model


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Yields a nested config and all dicts in it."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _dicts(item)


def _set_base(model: ConfigDict, base: Bases) -> None:
    parts = [part for part in _dicts(model) if 'base' in part]
    if not parts:
        raise ConfigError(f'A base was given, but the model ({model.get("type")}) has none. Remove base (--base).')
    folders = [base] if isinstance(base, str | os.PathLike) else base
    for part in parts:
        part['base'] = [os.fspath(folder) for folder in folders]
