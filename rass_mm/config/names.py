"""Known keys of a config and suggestions for misspelled names."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

RUNNER_KEYS = (
    *('model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader', 'train_cfg', 'val_cfg', 'test_cfg'),
    *('auto_scale_lr', 'optim_wrapper', 'param_scheduler', 'val_evaluator', 'test_evaluator', 'default_hooks'),
    *('custom_hooks', 'data_preprocessor', 'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level'),
    *('visualizer', 'default_scope', 'randomness', 'experiment_name', 'runner_type', 'custom_imports'),
    *('model_wrapper_cfg', 'find_unused_parameters', 'fine_tune', 'tta_model', 'tta_pipeline', 'clean_val'),
)
"""Keys that mmengine's runner and this package read."""
ALIKE = 0.8
"""Similarity from which a name is taken for a misspelled one. `strid` has 0.91 to `stride`, `crop` has 0.62 to
`crop_size`.
"""
SHOWN = 12
"""Maximum number of names in a message."""


def did_you_mean(names: Sequence[str]) -> str:
    """Returns a sentence that suggests the first name."""
    return f'Did you mean {names[0]}?'


def suggestion(name: str, known: Iterable[str]) -> str:
    """Returns a sentence with the known name that is most similar, or with all known names if none is similar.

    Of many names, only those with the greatest similarity are listed.
    """
    names = sorted({str(entry) for entry in known})
    lower = {entry.lower(): entry for entry in names}
    found = get_close_matches(str(name).lower(), list(lower), 1)
    if found:
        return did_you_mean([lower[found[0]]])
    if not names:
        return 'There are no known names.'
    if len(names) > SHOWN:
        near = get_close_matches(str(name).lower(), list(lower), SHOWN // 2, 0)
        return f'The most similar of the {len(names)} known names are {", ".join(lower[entry] for entry in near)}.'
    return f'Known: {", ".join(names)}.'


def is_misspelled(name: str, known: Iterable[str]) -> bool:
    """Returns whether an unknown name is so similar to a known one that it is probably the same name, misspelled."""
    return bool(get_close_matches(str(name).lower(), [entry.lower() for entry in known], 1, ALIKE))
