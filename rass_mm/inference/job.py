"""Runs a job image by image, shows the progress, collects errors and records finished images in a manifest."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from rich.progress import TextColumn

from rass_mm.errors import AdapterError, DataError, the_others
from rass_mm.files.containers.kinds import extracted
from rass_mm.files.verified import State
from rass_mm.inference.manifest import Manifest, checksums, output_states, source_line
from rass_mm.inference.plan import Plan, Task
from rass_mm.parallel import Pool, progress_bar

logger = logging.getLogger(__name__)

LISTED = 20

Note = Callable[[str], None]
"""Shows the progress within an image, e.g. 'window 3'."""
Work = Callable[[Task, Note], dict[str, Any]]
"""Processes one image, writes its outputs and returns values to add to its manifest line."""


class Worker(NamedTuple):
    """Model that is ready to process images, as a function, and facts about it that the job records."""

    work: Work
    facts: Mapping[str, Any] = {}


Build = Callable[[], Worker]
"""Loads the model. For a pool of processes, it is pickled, and each of them calls it."""


class Result(NamedTuple):
    """Result of one image: its manifest line and the states of its outputs, or None and the reason of the failure.

    `facts` are those of its worker.
    """

    task: Task
    line: dict[str, Any] | None
    states: Sequence[State] = ()
    reason: str = ''
    facts: Mapping[str, Any] = {}


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


def run_tasks(
    tasks: list[Task],
    build: Build,
    manifest: Manifest | None,
    words: Words,
    pool: Pool | None = None,
    facts: dict[str, Any] | None = None,
) -> dict[str, str]:
    """Processes images and returns the images that failed: their names, each with an error message.

    Args:
        tasks: the images. They are processed in order; by a pool, in any order.
        build: function that loads the model.
        manifest: manifest to which finished images are added, or None.
        words: words for the messages.
        pool: processes that do the work, or None for this process. It needs a manifest.
        facts: dict that is filled with the facts of the worker as soon as they are known.

    Raises:
        DataError: an output cannot be written.
    """
    worker = build() if pool is None else None
    learn = partial(_learn, manifest, {} if facts is None else facts)
    learn(worker.facts if worker else {})
    broken = {}
    try:
        if manifest:
            manifest.prepare()
        with _progress(words.doing, len(tasks)) as (begin, note):
            here = worker and _results_here(tasks, worker.work, begin, note)
            with closing(here or _results_of(pool, build, tasks, manifest, begin)) as results:
                for result in results:
                    learn(result.facts)
                    _record(result, manifest, broken)
    except OSError as error:
        raise DataError(
            f'Cannot write the {words.done} images: {error}. Finished images are kept. Free disk space or check the '
            'permissions, and run the same command again.'
        ) from error
    return broken


def _record(result: Result, manifest: Manifest | None, broken: dict[str, str]) -> None:
    if manifest:
        manifest.begin()
    if result.line is None:
        broken[result.task.name] = result.reason
    elif manifest:
        manifest.add(result.line)
        manifest.add_states(result.task, result.states)


def _learn(manifest: Manifest | None, known: dict[str, Any], facts: Mapping[str, Any]) -> None:
    if manifest and facts and not known:
        manifest.note(**facts)
    known.update(facts)


def _results_here(
    tasks: Sequence[Task], work: Work, begin: Callable[[str], None], note: Note
) -> Generator[Result, None, None]:
    for task in tasks:
        begin(task.name)
        yield _result(task, work, note)


def _results_of(
    pool: Pool, build: Build, tasks: Sequence[Task], manifest: Manifest, begin: Callable[[str], None]
) -> Generator[Result, None, None]:
    """Yields the results of a pool. An error or Ctrl-C before the first one takes the manifest of a new folder back."""
    first = True
    try:
        with closing(pool(partial(_processing, build), tasks, manifest.path, manifest.roots)) as results:
            for result in results:
                first = False
                begin(result.task.name)
                yield result
        manifest.clean()  # a process that was killed and replaced leaves temporary files
    except BaseException:
        if first:
            manifest.withdraw()
        raise


def _processing(build: Build) -> Callable[[Task], Result]:
    """Loads the model in a process of a pool, and returns the function that processes an image there."""
    worker = build()

    def process(task: Task) -> Result:
        return _result(task, worker.work, lambda text: None)._replace(facts=worker.facts)

    return process


def _result(task: Task, work: Work, note: Note) -> Result:
    """Processes one image.

    Raises:
        OSError: an output cannot be written.
    """
    try:
        line = source_line(task)  # before reading, so that a source that changes meanwhile counts as changed
    except OSError as error:
        return Result(task, None, reason=f'{task.source}: the image no longer exists ({error}).')
    source = task.source
    try:
        with extracted(task.member, source) as source:
            line |= work(task._replace(source=source), note)
        states = output_states(task)  # before the outputs are read for their checksums
        return Result(task, line | checksums(task), states)
    except (AdapterError, DataError) as error:
        reason = str(error).replace(str(source), str(task.origin))
        return Result(task, None, reason=reason if str(task.origin) in reason else f'{task.origin}: {reason}')


def report_broken(broken: Mapping[str, str], plan: Plan, words: Words) -> None:
    """Raises a DataError that lists the images that failed, if there are any."""
    if not broken:
        return
    listed = [f'  {broken[name]}' for name in sorted(broken)[:LISTED]]
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
