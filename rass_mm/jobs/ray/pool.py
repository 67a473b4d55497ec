"""Pool of actors of a Ray cluster."""

import logging
import pickle
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray.data
from ray.exceptions import RayError, RayTaskError

from rass_mm.errors import ConfigError, DataError, clipped
from rass_mm.jobs.part import TOKEN, token_prefix
from rass_mm.jobs.ray.actor import ANSWER, JOBS, Actor, Answer, Order
from rass_mm.jobs.ray.cluster import LOCAL, connected

logger = logging.getLogger(__name__)

BATCH, PER_ACTOR = 8, 4
"""Largest number of jobs in a batch, and least number of batches per actor that smaller batches are made for."""
ROUND = 50_000
"""Number of jobs after which a new pool begins, so that the memory of the command does not grow with the job."""


@dataclass(frozen=True)
class RayPool:
    """Pool of actors that process jobs; see `rass_mm.parallel.Pool`.

    Args:
        address: 'local', 'auto' or host:port.
        actors: number of actors; None for one per GPU of the cluster, or per CPU core if it has none.
        cards: whether the work can use GPUs.
    """

    address: str
    actors: int | None = None
    cards: bool = False

    def __call__(
        self, build: Callable[[], Callable[[Any], Any]], jobs: Sequence[Any], manifest: Path, sources: Sequence[Path]
    ) -> Generator[Any, None, None]:
        """Yields the result of each job."""
        with _token(manifest) as token, connected(self.address, self.actors) as resources:
            cards = int(resources.get('GPU', 0)) if self.cards else 0
            count = min(self._count(resources, cards), len(jobs))
            share = -(-count // cards) if cards else 0
            places = f'{share} per GPU' if share else 'with one CPU thread each'
            logger.info('Ray: %d process%s %s', count, 'es' * (count > 1), places)
            order = Order(build, Path.cwd(), token, sources, share=share)
            for start in range(0, len(jobs), ROUND):
                for answer in _answers(order, jobs[start : start + ROUND], count):
                    yield from answer.results
                    if answer.failure is not None:
                        raise self._located(answer)

    def _count(self, resources: Mapping[str, float], cards: int) -> int:
        most = int(resources.get('CPU', 0))
        if most < (self.actors or 1):
            raise ConfigError(
                f'The Ray cluster has room for {most} processes of this command, but {self.actors or 1} were asked '
                f'for. {f"Set --ray-actors {most}" if most else "Add machines with CPU cores"}.'
            )
        return self.actors or min(most, cards or most)

    def _located(self, answer: Answer) -> Exception:
        """Returns the failure of an answer, with the name of the machine in a cluster."""
        error = answer.failure
        if self.address == LOCAL:
            return error
        if isinstance(error, OSError):
            return type(error)(error.errno, f'on the machine {answer.machine}: {error.strerror}', error.filename)
        return type(error)(f'On the machine {answer.machine}: {error}')


@contextmanager
def _token(manifest: Path) -> Generator[Path, None, None]:
    """Context manager. Yields a file in the output folder, and removes it and the marks of batches in progress.

    Those of a killed command are removed by the next command with the same manifest, or by the merge of the shards.
    """
    with tempfile.NamedTemporaryFile(prefix=token_prefix(manifest), suffix=TOKEN, dir=manifest.parent) as file:
        token = Path(file.name)
        try:
            yield token
        finally:
            for mark in token.parent.glob(token.name.replace('.ray', '.ray*', 1)):
                if mark != token:
                    mark.unlink(missing_ok=True)


def _answers(order: Order, jobs: Sequence[Any], actors: int) -> Generator[Answer, None, None]:
    """Streams batches of jobs through a pool of actors.

    Raises:
        DataError: Ray ends the job, e.g. because actors end before they have loaded the model.
    """
    size = max(1, min(BATCH, len(jobs) // (actors * PER_ACTOR)))
    starts = range(0, len(jobs), size)
    batches = [{JOBS: pickle.dumps((number, jobs[start : start + size]))} for number, start in enumerate(starts)]
    _silence()
    done = ray.data.from_items(batches, override_num_blocks=len(batches)).map_batches(
        Actor,  # Ray starts it again without a limit, and repeats its batch
        batch_size=None,
        fn_constructor_args=(order,),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
        num_gpus=1 / order.share if order.share else 0,
    )
    try:
        for found in done.iter_batches(batch_size=None, prefetch_batches=0, batch_format='numpy'):
            for answer in found[ANSWER]:
                yield pickle.loads(answer)
    except RayTaskError:
        raise  # of a library in an actor, with its traceback; those of this package are answers
    except RayError as error:
        reason = clipped((str(error).strip().splitlines() or [''])[-1], 200)
        raise DataError(
            f'Ray has ended the job ({type(error).__name__}: {reason}). Finished images are kept. Give the same '
            'command again. If it ends again, check whether rass_mm is installed on all machines, and use fewer '
            'processes (--ray-actors), because their memory may not suffice.'
        ) from error


def _silence() -> None:
    """Turns the progress bars and messages of Ray Data off."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger('ray.data').setLevel(logging.CRITICAL)
