"""Errors while mmengine builds the parts of a config, with the key and the value that caused them.

mmengine, mmseg and PyTorch raise errors such as `KeyError`, `TypeError` or `AssertionError` without the place in the
config. If such an error is raised while a part of the config is built, it becomes a ConfigError with the dotted key of
the part, its class and, for a misspelled name, the most similar known one. mmengine builds some parts only when a run
starts. Therefore, the calls that build them are wrapped: `Registry.build`, and methods of the runner. Errors of running
code, of code of the user, of a lack of memory and of a lost connection to other processes are not changed.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.runner import Runner

from rass_mm.config.frames import through_user_code
from rass_mm.config.messages import building_fault, early_fault, reading_fault
from rass_mm.config.parts import Parts
from rass_mm.config.processes import is_lost
from rass_mm.errors import ConfigError, RassError

UNCHANGED = (RassError, OSError, MemoryError, torch.OutOfMemoryError, torch.distributed.DistError)
"""Errors that have another cause than the config, or that name it already. So are those of `is_lost`."""
STEPS = (
    *('build_train_loop', 'build_val_loop', 'build_test_loop', 'build_dataloader', 'build_evaluator'),
    *('build_optim_wrapper', 'build_param_scheduler', 'scale_lr', '_init_model_weights', '__init__'),
)
"""Methods of the runner that build parts of the config, most of them when a run starts."""
_open: ContextVar[tuple[Parts, ...]] = ContextVar('open', default=())


@contextmanager
def named_parts(config: Config | Mapping[str, Any], *order: str) -> Iterator[None]:
    """Context manager. Inside the block, an error while a part of the config is built is a ConfigError that names it.

    Errors of other code in the block are not changed.

    Args:
        config: the config in use.
        order: top-level keys that are used. They are searched before the other keys.

    Raises:
        ConfigError: a part of the config cannot be built.
    """
    content = config._cfg_dict.to_dict() if isinstance(config, Config) else config
    parts = Parts(content, order, getattr(config, 'filename', None))
    token = _open.set((*_open.get(), parts))
    try:
        yield
    finally:
        _open.reset(token)


@contextmanager
def explained(config: Config | Mapping[str, Any], *order: str) -> Iterator[None]:
    """Context manager for code that only reads a config and builds its parts. Its errors become a ConfigError.

    Args:
        config: the config in use.
        order: top-level keys that are used. They are searched before the other keys.

    Raises:
        ConfigError: the block raised an error that is not in `UNCHANGED`, without running code of the user.
    """
    with named_parts(config, *order), reading_parts():
        yield


@contextmanager
def reading_parts() -> Iterator[None]:
    """Context manager like `explained`, for code that reads the config of the enclosing `named_parts`, if there is one.

    Raises:
        ConfigError: see `explained`.
    """
    try:
        yield
    except UNCHANGED:
        raise
    except Exception as error:
        if not _open.get() or through_user_code(error) or is_lost(error):
            raise
        raise ConfigError(reading_fault(_open.get()[-1], error)) from error


def adapt_builders() -> None:
    """Makes mmengine's registries and its runner report the part of the config that cannot be built.

    Outside of `named_parts` and `explained`, they are not changed.
    """
    Registry.build = _reporting(Registry.build)
    for name in STEPS:
        found = Runner.__dict__[name]
        static = isinstance(found, staticmethod)
        step = _step(found.__func__ if static else found)
        setattr(Runner, name, staticmethod(step) if static else step)


def _step(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def build_and_explain(*args: Any, **kwargs: Any) -> Any:
        with reading_parts():
            return build(*args, **kwargs)

    return build_and_explain


def _reporting(build: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(build)
    def build_and_explain(self: Registry, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        if not _open.get():
            return build(self, cfg, *args, **kwargs)
        parts = _open.get()[-1]
        fault = early_fault(parts, self, cfg)
        if fault:
            raise ConfigError(fault)
        try:
            return build(self, cfg, *args, **kwargs)
        except UNCHANGED:
            raise
        except Exception as error:
            if through_user_code(error) or is_lost(error) or not isinstance(cfg, dict):
                raise
            raise ConfigError(building_fault(parts, self, cfg, error)) from error

    return build_and_explain
