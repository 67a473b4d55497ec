"""Runs a job image by image, shows the progress, collects errors and records finished images in a manifest."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.progress import TextColumn

from rass_mm.errors import AdapterError, DataError, the_others
from rass_mm.files.verified import State
from rass_mm.inference.manifest import Manifest, checksums, output_states, source_line
from rass_mm.inference.plan import Plan, Task
from rass_mm.parallel import progress_bar

logger = logging.getLogger(__name__)

LISTED = 20

Note = Callable[[str], None]
"""Shows the progress within an image, e.g. 'window 3'."""
Work = Callable[[Task, Note], dict[str, Any]]
"""Processes one image, writes its outputs and returns values to add to its manifest line."""


@dataclass(frozen=True)
class Summary:
    """Number of images and duration of a run.

    Args:
        images: number of requested images.
        made: number of images that this run processed; the others were finished by an earlier run.
        seconds: duration of the run.
    """

    images: int
    made: int
    seconds: float


@dataclass(frozen=True)
class Words:
    """Words for the messages of a job, e.g. 'restoring' (`doing`) and 'restored' (`done`)."""

    doing: str
    done: str


def run_tasks(tasks: list[Task], work: Work, manifest: Manifest | None, words: Words) -> dict[str, str]:
    """Processes images in order and returns the images that failed: their names, each with an error message.

    Args:
        tasks: the images.
        work: function that processes one image.
        manifest: manifest to which finished images are added, or None.
        words: words for the messages.

    Raises:
        DataError: an output cannot be written.
    """
    broken = {}
    try:
        if manifest:
            manifest.begin()
        with _progress(words.doing, len(tasks)) as (begin, note):
            for task in tasks:
                begin(task.name)
                try:
                    line, states = _processed(task, work, note)
                except DataError as error:
                    broken[task.name] = str(error)
                    continue
                if manifest:
                    manifest.add(line)
                    manifest.add_states(task, states)
    except OSError as error:
        raise DataError(
            f'Cannot write the {words.done} images: {error}. Finished images are kept. Free disk space or check the '
            'permissions, and run the same command again.'
        ) from error
    return broken


def _processed(task: Task, work: Work, note: Note) -> tuple[dict[str, Any], list[State]]:
    """Processes one image and returns its manifest line and the states of its outputs.

    Raises:
        DataError: the image cannot be read or processed.
        OSError: an output cannot be written.
    """
    try:
        line = source_line(task)  # before reading, so that a source that changes meanwhile counts as changed
    except OSError as error:
        raise DataError(f'{task.source}: the image no longer exists ({error}).') from error
    try:
        line |= work(task, note)
        states = output_states(task)  # before the outputs are read for their checksums
        return line | checksums(task), states
    except (AdapterError, DataError) as error:
        named = str(error) if str(task.source) in str(error) else f'{task.source}: {error}'
        raise DataError(named) from error


def report_broken(broken: Mapping[str, str], plan: Plan, words: Words) -> None:
    """Raises a DataError that lists the images that failed, if there are any."""
    if not broken:
        return
    listed = [f'  {reason}' for reason in list(broken.values())[:LISTED]]
    listed += [f'  and {len(broken) - LISTED} more'] * (len(broken) > LISTED)
    raise DataError(
        f'{len(broken)} of {len(plan.tasks)} images cannot be {words.done}:\n'
        + '\n'.join([*listed, the_others(len(plan.tasks) - len(broken), words.done)]).rstrip('\n')
    )


@contextmanager
def _progress(doing: str, total: int) -> Iterator[tuple[Callable[[str], None], Note]]:
    """Context manager. Yields a function to call before each image, and one that shows progress within an image.

    If the output is not a terminal, a line is logged after each tenth of the images.
    """
    with progress_bar(TextColumn('{task.fields[image]} {task.fields[note]}', markup=False)) as bar:
        row, begun = bar.add_task(doing, total=total, image='', note=''), 0

        def begin(name: str) -> None:
            nonlocal begun
            bar.update(row, completed=begun, image=name, note='')
            if bar.disable and begun and begun * 10 // total > (begun - 1) * 10 // total:
                logger.info('%d of %d images', begun, total)
            begun += 1

        yield begin, lambda text: bar.update(row, note=text)
        bar.update(row, completed=total)
