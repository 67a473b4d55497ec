"""Removes old files and records that Gradio 6.31 keeps of finished requests, until the app ends.

The record of an answer that is never fetched stays: Gradio cannot tell it from one that is fetched later. It is a short
identifier.
"""

import logging
import threading
import time

from rass_mm.app.limits import Limits
from rass_mm.app.toolkit import gradio
from rass_mm.app.workspace import Workspace
from rass_mm.errors import InstallationError

logger = logging.getLogger(__name__)

LONGEST_PAUSE = 2.0
"""Seconds between two rounds at most."""
NEEDED = {
    'temp_file_sets': (),
    '_queue': ('event_queue_per_concurrency_id', 'active_jobs', 'pending_event_ids_session'),
    'state_holder': ('session_data', 'time_last_used', 'lock'),
}
"""Attributes of Gradio's page, and theirs, that are not part of its documented interface."""


class Cleaner:
    """Removes old files, and records of Gradio that would grow without end.

    Gradio can remove files itself (`delete_cache`), but stops forever if a file is added meanwhile: "Set changed size
    during iteration".

    Args:
        page: the page.
        workspace: the folder with the files.
        limits: the limits with the age of the files.

    Raises:
        InstallationError: this version of Gradio has no such records.
    """

    def __init__(self, page: gradio.Blocks, workspace: Workspace, limits: Limits) -> None:
        _check_version(page)
        self.page, self.workspace, self.age = page, workspace, limits.keep * 60
        self.silent: set[str] = set()
        self.empty: set[str] = set()

    def run(self, ended: threading.Event) -> None:
        """Cleans periodically until `ended` is set. A round that fails is logged."""
        while not ended.wait(max(min(self.age / 4, LONGEST_PAUSE), 0.2)):
            try:
                self.clean()
            except Exception as error:
                logger.warning('Old files and records could not be removed (%s). The next round tries again.', error)
                logger.debug('Its error', exc_info=True)

    def clean(self) -> None:
        """Removes what is old or empty now."""
        self.workspace.sweep(self.age, self.waiting())
        for names in self.page.temp_file_sets:
            names.clear()
        self._remove_sessions()
        self._remove_answers()

    def waiting(self) -> float:
        """Returns how many seconds the first of the waiting and running requests has waited."""
        queue = self.page._queue
        waiting = [event for one in list(queue.event_queue_per_concurrency_id.values()) for event in list(one.queue)]
        waiting += [event for job in list(queue.active_jobs) for event in job or []]
        return max((time.monotonic() - event.enqueue_time for event in waiting), default=0.0)

    def _remove_sessions(self) -> None:
        """Removes sessions without an image that had none in the last round either.

        Each call of the HTTP service has a session, and Gradio would remove those of users in favour of them.
        """
        holder = self.page.state_holder
        empty = {name for name, session in list(holder.session_data.items()) if not session.state_data}
        for name in empty & self.empty:
            with holder.lock:
                session = holder.session_data.get(name)
                if session is not None and not session.state_data:  # it may have got an image meanwhile
                    holder.session_data.pop(name, None)
                    holder.time_last_used.pop(name, None)
        self.empty = empty

    def _remove_answers(self) -> None:
        """Removes the records of sessions all of whose answers were received before the last round."""
        pending = self.page._queue.pending_event_ids_session
        silent = {name for name, events in list(pending.items()) if not events}
        for name in silent & self.silent:
            if not pending.get(name):
                pending.pop(name, None)
        self.silent = silent


def _check_version(page: gradio.Blocks) -> None:
    found = [(name, getattr(page, name, None), parts) for name, parts in NEEDED.items()]
    missing = [name for name, value, _ in found if value is None]
    missing += [f'{name}.{part}' for name, value, parts in found for part in parts if not hasattr(value, part)]
    if missing:
        raise InstallationError(
            f'The app does not work with Gradio {gradio.__version__}, which has no {missing[0]}. To fix: '
            "pip install 'gradio==6.31.0'"
        )
