"""Adapts entry points of mmengine and mmseg to configs that list this package in `custom_imports`.

mmseg's tools, `init_model` and `MMSegInferencer` read configs and build runners without `rass_mm.apis`. They may have
been imported before this package, which is imported only while they read a config. Therefore, this module does not
replace their classes but wraps methods of the classes.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mmseg.apis.inference
import numpy as np
from mmcv.transforms import Compose, LoadImageFromFile
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.apis import MMSegInferencer
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.datasets.transforms.loading import InferencerLoader
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import TRANSFORMS
from mmseg.visualization import SegLocalVisualizer

from rass_mm.config import config_from_checkpoint
from rass_mm.config.building import UNCHANGED
from rass_mm.config.frames import through_user_code
from rass_mm.config.kinds import name_types
from rass_mm.datasets.classes import follow_classes
from rass_mm.datasets.loading import LoadImageStrict
from rass_mm.datasets.preflight import drop_absent_labels, follow_clean_suffix
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.engine.checkpoints import load_local
from rass_mm.errors import CheckpointError, ConfigError
from rass_mm.files.tensors import first_line
from rass_mm.segmentation.clean_crops import follow_clean_twins
from rass_mm.segmentation.clean_twins import adapt_segmentors
from rass_mm.segmentation.fine_tuning import use_fine_tuning
from rass_mm.segmentation.fitting import RESUMED
from rass_mm.segmentation.head_inputs import adapt_heads
from rass_mm.segmentation.logits import each_size

HOOKS = tuple(
    {'type': name}
    for name in (
        *('LabelsOnlyHook', 'LabelledClassesHook'),
        *('FiniteTrainingHook', 'ConfigScheduleHook', 'EpochSamplerHook', 'FittingCheckpointHook', 'TermsHook'),
    )
)
"""Hooks that are added to every runner of a config that imports this package."""

NO_MEMORY = "can't allocate memory"
"""Words of PyTorch's RuntimeError if the main memory is full."""
LIMIT = 'max_pixels'
"""Argument of `LoadImageStrict` that the loaders of mmcv, which mmseg puts in its place, do not have."""


def settle(config: dict[str, Any]) -> None:
    """Completes a config in place.

    This replaces classes by their registered names, removes the settings of absent labels, and sets the suffix of clean
    images, the classes of the data set, the steps of clean twins, and the initial weights for `fine_tune`.

    Raises:
        ConfigError: the config contradicts its data set or itself.
    """
    name_types(config)
    drop_absent_labels(config)
    follow_clean_suffix(config)
    follow_classes(config)
    follow_clean_twins(config)
    use_fine_tuning(config)


def adapt_entry_points() -> None:
    """Wraps `Config`, `Runner`, segmentors, decode heads, `MMSegInferencer`, the visualizer, `inference_model`."""
    _wrap_config()
    _wrap_runner()
    _wrap_inference_model()
    _wrap_inferencer()
    _wrap_visualizer()
    _wrap_steps()
    adapt_heads()
    adapt_segmentors()


def imports_rass_mm(config: Any) -> bool:
    """Returns whether a config lists this package in `custom_imports`."""
    imports = (config.get('custom_imports') or {}).get('imports') or ()
    return 'rass_mm' in ([imports] if isinstance(imports, str) else imports)


def _wrap_config() -> None:
    build = Config.__init__

    @functools.wraps(build)
    def build_and_settle(self: Config, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if not imports_rass_mm(self._cfg_dict):
            return
        settled = copy.deepcopy(self._cfg_dict)
        try:
            settle(settled)
        except Exception:  # a broken value may raise any error; options may still be merged, and the runner reports it
            return
        object.__setattr__(self, '_cfg_dict', settled)

    Config.__init__ = build_and_settle


def _wrap_runner() -> None:
    build = Runner.__init__

    @functools.wraps(build)
    def settle_and_build(self: Runner, *args: Any, **kwargs: Any) -> None:
        # `from_cfg` passes a copy of the config, and parts of this copy.
        config = kwargs.get('cfg') or {}
        if imports_rass_mm(config):
            settle(config)
            kwargs['custom_hooks'] = [*(kwargs.get('custom_hooks') or []), *map(dict, HOOKS)]
        build(self, *args, **kwargs)

    Runner.__init__ = settle_and_build
    resume = Runner.resume

    @functools.wraps(resume)
    def resume_whole(self: Runner, filename: str, *args: Any, **kwargs: Any) -> None:
        try:
            resume(self, filename, *args, **kwargs)
        except UNCHANGED:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            # Values of the optimizer, the schedule or the log can be wrong in any way.
            if through_user_code(error) or NO_MEMORY in str(error):
                raise
            raise CheckpointError(
                f'{filename} cannot be resumed with this config: its optimizer, schedule or log does not fit '
                f'({type(error).__name__}: {first_line(error)}). {RESUMED}'
            ) from error

    Runner.resume = resume_whole


def _wrap_inference_model() -> None:
    prepare = mmseg.apis.inference._preprare_data

    @functools.wraps(prepare)
    def prepare_and_restore(imgs: Any, model: BaseModel) -> Any:
        first = imgs[0] if isinstance(imgs, (list, tuple)) else imgs
        with _own_pipeline(model.cfg):
            if isinstance(first, np.ndarray):
                model.cfg.test_pipeline[0].pop(LIMIT, None)
            return prepare(imgs, model)

    mmseg.apis.inference._preprare_data = prepare_and_restore


@contextmanager
def _own_pipeline(config: Config) -> Iterator[None]:
    """Context manager. Inside the block, the config has a `test_pipeline` that may be changed.

    mmseg changes it if the images are arrays. After the block exits, its previous value is restored.
    """
    kept = config.get('test_pipeline')
    if kept is None:
        _, dataset = next(leaf_paths(config.get('test_dataloader'), 'test_dataloader'))
        config.test_pipeline = dataset['pipeline']
    config.test_pipeline = copy.deepcopy(config.test_pipeline)
    try:
        yield
    finally:
        config.test_pipeline = kept


def _wrap_inferencer() -> None:
    build = MMSegInferencer._init_pipeline

    @functools.wraps(build)
    def build_strict(self: MMSegInferencer, cfg: Any) -> Compose:
        strict = _name_loaders_plainly(cfg)
        pipeline = build(self, cfg)
        for step in pipeline.transforms:
            if strict is not None and isinstance(step, InferencerLoader):
                step.from_file = LoadImageStrict(**strict)
        return pipeline

    MMSegInferencer._init_pipeline = build_strict
    load = MMSegInferencer._init_model

    @functools.wraps(load)
    def load_described(self: MMSegInferencer, cfg: Any, weights: str | None, *args: Any, **kwargs: Any) -> Any:
        if not cfg and weights is not None:
            cfg.update(config_from_checkpoint(load_local(weights, 'cpu'), weights)._cfg_dict)
        if not isinstance(cfg.get('model'), dict):
            raise ConfigError(f'The config of {weights} has no model. Pass the config that the model was trained with.')
        return load(self, cfg, weights, *args, **kwargs)

    MMSegInferencer._init_model = load_described


def _name_loaders_plainly(config: Any) -> dict[str, Any] | None:
    """Renames the image loader of a test pipeline to the name that the inferencer looks for, and drops label loaders.

    Returns:
        The arguments of the strict image loader, or None if the pipeline has a different loader.
    """
    _, dataset = next(leaf_paths(config.get('test_dataloader'), 'test_dataloader'))
    steps, strict = [], None
    for step in dataset['pipeline']:
        kind = TRANSFORMS.get(step['type']) if isinstance(step['type'], str) else step['type']
        bases = kind.__mro__ if isinstance(kind, type) else ()
        if LoadAnnotations in bases:
            continue
        if kind is LoadImageStrict:
            strict = {key: value for key, value in step.items() if key != 'type'}
        plain = {key: value for key, value in step.items() if key != LIMIT}
        steps.append({**plain, 'type': 'LoadImageFromFile'} if LoadImageFromFile in bases else step)
    config.test_dataloader.dataset.pipeline = steps
    return strict


def _wrap_visualizer() -> None:
    draw = SegLocalVisualizer.add_datasample

    @functools.wraps(draw)
    def draw_contiguous(self: SegLocalVisualizer, name: str, image: np.ndarray, *args: Any, **kwargs: Any) -> None:
        # OpenCV refuses the layout of the images that mmseg's browse_dataset passes.
        draw(self, name, np.ascontiguousarray(image), *args, **kwargs)

    SegLocalVisualizer.add_datasample = draw_contiguous


def _wrap_steps() -> None:
    """Makes the validation and the test accept batches of images of several sizes, which mmseg refuses."""
    BaseSegmentor.val_step = _one_by_one(BaseSegmentor.val_step)
    BaseSegmentor.test_step = _one_by_one(BaseSegmentor.test_step)


def _one_by_one(step: Callable[..., list]) -> Callable[..., list]:
    @functools.wraps(step)
    def stepped(self: BaseSegmentor, data: Any) -> list:
        return each_size(functools.partial(step, self), data)

    return stepped
