"""Ctrl-C. A command that was interrupted ends as such, whatever error the interruption becomes."""

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType

SHARER = 'resource_sharer.py'
"""File of the thread with which a data worker passes tensors on."""


class Interruption:
    """Record of Ctrl-C.

    Attributes:
        seen: whether Ctrl-C was pressed.
        advice: a sentence for the end of the message.
    """

    def __init__(self) -> None:
        self.seen = False
        self.advice = ''

    def over_errors(self, run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
        """Returns a function that runs a command and raises KeyboardInterrupt if it fails after Ctrl-C.

        Libraries such as safetensors replace a KeyboardInterrupt by an error of their own.
        """

        def attentive(arguments: argparse.Namespace) -> int:
            try:
                return run(arguments)
            except Exception:
                if self.seen:
                    raise KeyboardInterrupt from None
                raise

        return attentive


@contextmanager
def noted() -> Iterator[Interruption]:
    """Context manager. Inside the block, Ctrl-C is recorded before it has its usual effect.

    Nothing changes outside the main thread, or where Ctrl-C is ignored, as in the background of a shell. Threads that
    pass tensors between processes are silent when the other process has ended.
    """
    found, before, hook = Interruption(), signal.getsignal(signal.SIGINT), sys.excepthook

    def note(number: int, frame: FrameType | None) -> None:
        found.seen = True
        before(number, frame)

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (isinstance(error, EOFError | ConnectionError) and _passes_tensors(trace)):
            hook(kind, error, trace)

    changed = callable(before) and threading.current_thread() is threading.main_thread()
    if changed:
        signal.signal(signal.SIGINT, note)
    sys.excepthook = report
    try:
        yield found
    finally:
        if changed and signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, before)
        if sys.excepthook is report:
            sys.excepthook = hook


def _passes_tensors(trace: TracebackType | None) -> bool:
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).name == SHARER
