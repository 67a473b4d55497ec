"""Process of a pool: it checks that it sees what the command sees, loads the model once, and processes batches."""

import os
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import torch

from rass_mm.errors import DataError, InstallationError, RassError
from rass_mm.version import __version__

JOBS, ANSWER = 'jobs', 'answer'
"""Columns of the batches that go into an actor, and of those that it returns; both are pickled."""
REPEATS = 3
"""Number of times that a batch is repeated after the end of its process."""


class Answer(NamedTuple):
    """Answer to a batch: the results of its jobs, up to the first failure that ends the command, if there is one."""

    results: list[Any]
    failure: Exception | None
    machine: str


@dataclass(frozen=True)
class Order:
    """Work of all actors, and what they need to see.

    Args:
        build: function that loads the model and returns the function of a job.
        folder: working directory of the command, to which paths are relative.
        token: file in the output folder that exists during the job.
        sources: folders and containers that are read.
        version: version of the package.
        share: number of actors that share a GPU. 0 stands for actors on CPUs, with one thread each.
    """

    build: Callable[[], Callable[[Any], Any]]
    folder: Path
    token: Path
    sources: Sequence[Path]
    version: str = __version__
    share: int = 0

    def mark(self, number: int) -> Path:
        """Returns the path of the file that exists while a batch is processed, relative to `folder` as the token."""
        return self.token.with_name(self.token.name.replace('.ray', f'.ray{number}', 1))

    def begin(self) -> Callable[[Any], Any]:
        """Checks this process and returns the function of a job.

        Raises:
            InstallationError: another version of the package is installed.
            DataError: a folder cannot be seen.
            RassError: the model cannot be loaded.
        """
        if __version__ != self.version:
            raise InstallationError(
                f'rass_mm {__version__} is installed, but the command runs {self.version}. Install the same version on '
                'all machines.'
            )
        if not self.folder.is_dir():
            raise DataError(
                f'{self.folder}, in which the command was given, does not exist. Give the command in a folder that all '
                'machines share.'
            )
        os.chdir(self.folder)
        if not self.token.is_file():
            raise DataError(
                f'{self.token.parent.absolute()} is not the output folder of this job, because {self.token.name} is '
                'missing. All machines must see the output folder under the same path, e.g. on a network file system.'
            )
        for source in self.sources:
            if not source.exists():
                raise DataError(
                    f'{source.absolute()} does not exist. All machines must see the images under the same path.'
                )
        if not self.share:
            cv2.setNumThreads(1)
            torch.set_num_threads(1)
        return self.build()


def _begun(mark: Path, jobs: Sequence[Any]) -> Exception | None:
    """Notes in a file that a batch begins. Returns an error if its process has ended too often."""
    try:
        with mark.open('ab') as file:
            file.write(b'.')
            if file.tell() <= 1 + REPEATS:
                return None
    except OSError as error:
        return error
    return DataError(
        f'A process of Ray ended unexpectedly each of the {1 + REPEATS} times that it processed these images, most '
        f'likely because memory ran out: {", ".join(str(job.origin) for job in jobs)}. Finished images are kept. Give '
        'the same command again with fewer processes (--ray-actors), or without these images.'
    )


class Actor:
    """Function of a batch, with the state that lives as long as its process.

    A failure at the start is answered to the first batch, because Ray would wrap and repeat it.

    Args:
        order: the work.
    """

    def __init__(self, order: Order) -> None:
        self.order, self.failure = order, None
        try:
            self.function = order.begin()
        except (RassError, OSError) as error:
            self.failure = error

    def __call__(self, batch: Mapping[str, Sequence[bytes]]) -> dict[str, list[bytes]]:
        """Processes the jobs of a batch, which has one row: its number and its jobs."""
        number, jobs = pickle.loads(batch[JOBS][0])
        mark = self.order.mark(number)
        if self.failure is None:
            self.failure = _begun(mark, jobs)
        answer = self.answer(jobs)
        mark.unlink(missing_ok=True)
        return {ANSWER: [pickle.dumps(answer)]}

    def answer(self, jobs: Sequence[Any]) -> Answer:
        """Returns the results of jobs, up to the first failure."""
        results, failure = [], self.failure
        for job in jobs if failure is None else ():
            try:
                results.append(self.function(job))
            except (RassError, OSError) as error:
                failure = error
                break
        return Answer(results, failure, platform.node())
