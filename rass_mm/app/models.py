"""Models of the app: a restorer, a segmentor and a baseline, each of which can be missing."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rass_mm.config.parts import dicts
from rass_mm.diffusion.adapter_files import read_adapter
from rass_mm.diffusion.pack_base import restorer_files
from rass_mm.errors import ConfigError
from rass_mm.files.packs.reading import is_pack, read_pack
from rass_mm.inference.attention import adapter_classes
from rass_mm.inference.loading import load_segmentor, read_segmentor
from rass_mm.inference.restorer import PhotoRestorer, load_restorer
from rass_mm.inference.segmentor import Segmentor

PROMPT = 'ClassTokens'
"""Prompt whose tokens belong to class names."""


@dataclass(frozen=True)
class ModelFiles:
    """Files of the models.

    Args:
        adapter: adapter file or pack of a restorer, or None.
        base: base folder of the restorer and the segmentor; None uses the one in the config of the segmentor and those
            of packs.
        checkpoint: checkpoint or pack of a segmentor, or None.
        config: config of the segmentor; None uses the one in its checkpoint.
        baseline: checkpoint of a second segmentor, which is shown beside the first, or None.
        baseline_config: config of the baseline; None uses the one in its checkpoint.

    Raises:
        ConfigError: files are missing.
    """

    adapter: Path | None = None
    base: Path | None = None
    checkpoint: Path | None = None
    config: str | None = None
    baseline: Path | None = None
    baseline_config: str | None = None

    def __post_init__(self) -> None:
        if self.adapter is None and self.checkpoint is None:
            raise ConfigError('There is no model. Set --adapter for a restorer, --checkpoint for a segmentor, or both.')
        if self.adapter is not None and self.base is None and not is_pack(self.adapter):
            raise ConfigError('The Stable Diffusion folder that the adapter was trained on is missing. Set --base.')
        if self.baseline is not None and self.checkpoint is None:
            raise ConfigError('The baseline is shown beside a segmentor, which is missing. Set --checkpoint.')
        for option, needed in (('config', 'checkpoint'), ('baseline_config', 'baseline')):
            if getattr(self, option) is not None and getattr(self, needed) is None:
                raise ConfigError(f'--{option.replace("_", "-")} needs --{needed}.')


@dataclass
class Models:
    """Loaded models.

    Attributes:
        restorer: the restorer, or None.
        words: class names whose attention can be shown; empty if the restorer's prompt names no classes.
        segmentor: the segmentor, or None.
        baseline: the second segmentor, or None.
        lock: held while a model computes, because models change their settings during a call.
    """

    restorer: PhotoRestorer | None = None
    words: Sequence[str] = ()
    segmentor: Segmentor | None = None
    baseline: Segmentor | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def segmentors(self) -> dict[str, Segmentor]:
        """Name -> segmentor, for those that are loaded: 'segmentor' and 'baseline'."""
        found = {'segmentor': self.segmentor, 'baseline': self.baseline}
        return {name: model for name, model in found.items() if model is not None}


def load_models(files: ModelFiles, device: str | None = None, dtype: str | None = None) -> Models:
    """Loads the models.

    Args:
        files: their files.
        device: e.g. 'cpu' or 'cuda:1'; None uses the first one of CUDA, MPS and the CPU.
        dtype: precision; None uses the default of each model, see `load_segmentor` and `load_restorer`.

    Raises:
        RassError: a file cannot be used.
    """
    models = Models()
    if files.adapter is not None:
        file, base = restorer_files(files.adapter, files.base)
        adapter = read_adapter(file)
        models.restorer = load_restorer(adapter, base, device=device, dtype=dtype)
        names = adapter_classes(adapter)
        models.words = names if adapter.header['recipe']['prompt'] == PROMPT else ()
    if files.checkpoint is not None:
        models.segmentor = _segmentor(files.checkpoint, files.config, files.base, device, dtype)
    if files.baseline is not None:
        models.baseline = _segmentor(files.baseline, files.baseline_config, files.base, device, dtype)
    return models


def _segmentor(
    checkpoint: Path, config: str | None, base: Path | None, device: str | None, dtype: str | None
) -> Segmentor:
    """Loads a segmentor. `base` is used only if the segmentor has a base."""
    if is_pack(checkpoint):
        has_base = read_pack(checkpoint).manifest['base'] is not None
    else:
        model = read_segmentor(checkpoint, config).config.model.to_dict()
        has_base = any('base' in part for _, part in dicts(model, 'model'))
    return load_segmentor(checkpoint, config, base if has_base else None, device, dtype)
