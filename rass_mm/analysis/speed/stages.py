"""The stages of a model, and how an amount (seconds, operations) is divided among them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn

from rass_mm.diffusion.restorer import OneStepRestorer
from rass_mm.errors import ConfigError

OTHER = 'other'
"""What no stage takes: windows and their blending, logits enlarged to labels, copies between devices."""
HEAD_CALLS = ('forward', 'predict', 'rows')


@dataclass(frozen=True)
class StagePoint:
    """A method whose calls belong to a stage."""

    stage: str
    owner: Any
    method: str = 'forward'


def stage_points(model: nn.Module) -> list[StagePoint]:
    """Where each stage of a model runs, in the order in which they run.

    Raises:
        ConfigError: a model of a kind that has no known stages.
    """
    if hasattr(model, 'restorer'):
        return _restoring(model.restorer) + stage_points(model.segmentor)
    if isinstance(getattr(model, 'generator', None), OneStepRestorer):
        return [StagePoint('prompt', model.test_prompt), *_one_step(model.generator)]
    extractor = extractor_of(model)
    if extractor is not None:
        unet = StagePoint('UNet', extractor.unet)
        prompt = StagePoint('prompt', model.backbone.prompt)
        points = [prompt, StagePoint('encode', extractor.vae, 'encode'), unet]
    elif hasattr(model, 'backbone') and hasattr(model, 'decode_head'):
        points = [StagePoint('backbone', model.backbone)]
    else:
        raise ConfigError(
            f'{type(model).__name__} cannot be divided into stages: a RASS, a segmentor with backbone and decode_head, '
            f'an SCRRestorer or a RestoreThenSegment is needed.'
        )
    points += [StagePoint('neck', model.neck)] if getattr(model, 'neck', None) is not None else []
    heads = model.decode_head if isinstance(model.decode_head, nn.ModuleList) else [model.decode_head]
    return points + [StagePoint('head', head, call) for head in heads for call in HEAD_CALLS if hasattr(head, call)]


def extractor_of(model: nn.Module) -> Any:
    """The diffusion extractor of a segmentor with a `DiffusionBackbone`; None for any other."""
    return getattr(getattr(model, 'backbone', None), 'extractor', None)


def _one_step(restorer: OneStepRestorer) -> list[StagePoint]:
    ends = restorer.autoencoder
    unet = StagePoint('UNet', restorer.unet)
    return [StagePoint('encode', ends, 'encode'), unet, StagePoint('decode', ends, 'decode')]


def _restoring(restorer: nn.Module) -> list[StagePoint]:
    """Of the restorer before a segmentor: named apart, because both may have a UNet."""
    inner = getattr(restorer, 'restorer', None)
    if not isinstance(getattr(inner, 'model', None), OneStepRestorer):
        return [StagePoint('restore', restorer)]
    points = [StagePoint('prompt', inner.prompt), *_one_step(inner.model)]
    return [StagePoint(f'restore: {point.stage}', point.owner, point.method) for point in points]


def heavy_modules(model: nn.Module) -> list[nn.Module]:
    """The frozen modules that take most of the time, and of a plain segmentor the backbone: what is compiled."""
    if hasattr(model, 'restorer'):
        inner = getattr(model.restorer, 'restorer', None)
        one_step = getattr(inner, 'model', None)
        restoring = _heavy_parts(one_step) if isinstance(one_step, OneStepRestorer) else [model.restorer]
        return restoring + heavy_modules(model.segmentor)
    if isinstance(getattr(model, 'generator', None), OneStepRestorer):
        return _heavy_parts(model.generator)
    extractor = extractor_of(model)
    return [extractor.vae.encoder, extractor.unet] if extractor is not None else [model.backbone]


def _heavy_parts(restorer: OneStepRestorer) -> list[nn.Module]:
    ends = restorer.autoencoder
    networks = [network for network in (ends.vae, getattr(ends, 'tiny', None)) if network is not None]
    ends = [getattr(network, part) for network in networks for part in ('encoder', 'decoder')]
    return [restorer.unet, *(end for end in ends if end is not None)]


class StageMeter:
    """Divides a growing amount among the stages that were open while it grew; a stage inside another takes its own.

    Args:
        read: the amount so far, e.g. `time.perf_counter`, which waits for the device first.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.amounts: dict[str, float] = {}
        self._read = read
        self._open: list[str] = []
        self._last = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What grows inside belongs to stage `name`."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def _charge(self) -> None:
        now = self._read()
        if self._open:
            self.amounts[self._open[-1]] = self.amounts.get(self._open[-1], 0.0) + now - self._last
        self._last = now

    @contextmanager
    def watching(self, points: list[StagePoint]) -> Iterator[None]:
        """Meters all that runs inside by stages, the rest as 'other'; nothing stays wrapped behind it."""
        self.amounts |= dict.fromkeys([*(point.stage for point in points), OTHER], 0.0)
        with ExitStack() as stack:
            for point in points:
                stack.enter_context(replaced(point.owner, point.method, self._wrapped(point.stage)))
            stack.enter_context(self.stage(OTHER))
            yield

    def _wrapped(self, stage: str) -> Callable[[Callable], Callable]:
        def wrap(method: Callable) -> Callable:
            def call(*args: Any, **kwargs: Any) -> Any:
                with self.stage(stage):
                    result = method(*args, **kwargs)
                # A head may give a function that computes rows when they are asked for: its work too.
                return wrap(result) if isinstance(result, FunctionType) else result

            return call

        return wrap


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Inside, the attribute `name` of one object is what `make` gives for the old one."""
    own = name in vars(owner) or name in getattr(owner, '_modules', {})
    old = getattr(owner, name)
    setattr(owner, name, make(old))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, old)
        else:
            delattr(owner, name)  # the class's own shows again
