"""Options of a test that change its config: restored images to write, windows on the screen, test-time augmentation."""

import matplotlib
from matplotlib.backends import BackendFilter, backend_registry
from mmengine.config import Config

from rass_mm.config.kinds import as_list, type_name
from rass_mm.datasets.wrappers import leaf_paths
from rass_mm.errors import ConfigError


def restores(config: Config) -> bool:
    """Returns whether a test with this config measures the quality of restored images."""
    return any(type_name(part) == 'RestorationMetrics' for part in as_list(config.get('test_evaluator')))


def write_outputs(config: Config, out: str | None, show_dir: str | None) -> None:
    """Sets up the evaluator of a restorer to write restored images to `out` and comparison pictures to `show_dir`.

    The outputs of segmentors are written by hooks instead, see `name_outputs`.
    """
    evaluators = as_list(config.test_evaluator)
    for number, evaluator in enumerate(evaluators):
        if type_name(evaluator) == 'RestorationMetrics':
            evaluators[number] = {**evaluator, 'output_dir': out, 'show_dir': show_dir}
            break
    config.test_evaluator = evaluators if len(evaluators) > 1 else evaluators[0]


def show_predictions(config: Config, wait_time: float) -> None:
    """Sets up a config to show each prediction in a window, as mmseg's `--show` does.

    Raises:
        ConfigError: there is no display, or the config is for a restorer.
    """
    if restores(config):
        raise ConfigError('--show supports segmentation only. To see restored images, write them with --show-dir DIR.')
    if matplotlib.get_backend().lower() not in interactive_backends():
        raise ConfigError('--show needs a display, but none was found. Write the pictures with --show-dir DIR.')
    hook = config.default_hooks.get('visualization') or {'type': 'SegVisualizationHook'}
    config.default_hooks.visualization = {**hook, 'draw': True, 'interval': 1, 'show': True, 'wait_time': wait_time}


def interactive_backends() -> set[str]:
    """Returns the names of the matplotlib backends that open windows, in lower case."""
    return {name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)}


def use_tta(config: Config) -> None:
    """Switches a config to its test-time augmentation (`tta_model` and `tta_pipeline`), in place.

    Raises:
        ConfigError: the config does not define test-time augmentation.
    """
    if config.get('tta_pipeline') is None or config.get('tta_model') is None:
        raise ConfigError(
            "--tta needs 'tta_pipeline' and 'tta_model' in the config, as in configs/_base_/datasets/*.py."
        )
    for _, dataset in leaf_paths(config.test_dataloader, 'test_dataloader'):
        dataset.pipeline = config.tta_pipeline
    # Test-time augmentation merges logits, which RASS otherwise discards after each image.
    segmentor = config.model.get('segmentor') or config.model
    segmentor.test_cfg = {**(segmentor.get('test_cfg') or {}), 'keep_logits': True}
    config.tta_model.module = config.model
    config.model = config.tta_model
