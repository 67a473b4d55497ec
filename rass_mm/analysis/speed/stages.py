"""Measures how an amount, such as seconds or operations, is divided among the stages of a model."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

from torch import nn

from rass_mm.diffusion.stages import StagePoint

OTHER = 'other'
"""Name of the stage for all other work: cutting and blending windows, resizing logits, copies between devices."""


def extractor_of(model: nn.Module) -> Any:
    """Returns the diffusion extractor of a segmentor's backbone, or None if the backbone has none."""
    return getattr(getattr(model, 'backbone', None), 'extractor', None)


class StageMeter:
    """Divides a growing amount among stages. Growth inside nested stages is added to the innermost stage.

    Args:
        read: a function that returns the current amount, e.g. the time after synchronizing the device.
    """

    def __init__(self, read: Callable[[], float]) -> None:
        self.amounts: dict[str, float] = {}
        self._read = read
        self._open: list[str] = []
        self._last = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Context manager. Adds the growth of the amount inside the block to the stage `name`."""
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
        """Context manager. Inside the block, growth during a method in `points` is added to the stage of that method.

        All other growth is added to the stage 'other'.
        """
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
                # A head may return a function that computes rows lazily, which belongs to its stage too.
                return wrap(result) if isinstance(result, FunctionType) else result

            return call

        return wrap


@contextmanager
def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[None]:
    """Context manager. Inside the block, the attribute `name` of `owner` has the value `make(old value)`."""
    own = name in vars(owner) or name in getattr(owner, '_modules', {})
    old = getattr(owner, name)
    setattr(owner, name, make(old))
    try:
        yield
    finally:
        if own:
            setattr(owner, name, old)
        else:
            delattr(owner, name)  # makes the class attribute visible again
