"""How functions of the app run as events of Gradio: one model call at a time, and errors as messages."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from rass_mm.app.messages import message_of
from rass_mm.app.toolkit import gradio

MODEL: Mapping[str, Any] = {'concurrency_id': 'model', 'concurrency_limit': 1}
"""Settings of events that call a model: one after the other, for all users."""
LIGHT: Mapping[str, Any] = {'concurrency_id': 'light', 'concurrency_limit': 4}
"""Settings of events that call no model."""
PRIVATE: Mapping[str, Any] = {'api_visibility': 'private'}
"""Settings of events of the page that are not part of the HTTP service."""


def reported(function: Callable) -> Callable:
    """Wraps a function of the HTTP service: its errors become errors of Gradio, which clients receive as messages."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise gradio.Error(message_of(error), print_exception=False) from error

    return run
