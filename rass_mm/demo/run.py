"""Runs the complete demo: scenes, restorer, segmentors, tests, results table and picture page.

Each step runs a `rass-mm` command with a shipped config in its own process. Finished training runs are kept, so that an
interrupted demo resumes. The base is included in the package.
"""

import logging
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event

from rich.console import Console
from rich.logging import RichHandler

from rass_mm.demo.costs import Costs
from rass_mm.demo.page import demo_page
from rass_mm.demo.settings import DemoSettings, claim_folder
from rass_mm.demo.steps import (
    BASELINE,
    LONGER,
    R2S,
    RASS,
    RASS_SCR,
    SCR,
    Step,
    System,
    data_steps,
    restorer_tests,
    segmentor_tests,
    training,
)
from rass_mm.demo.table import demo_table
from rass_mm.files.atomic import write_text
from rass_mm.files.locks import held
from rass_mm.parallel import run_logged

logger = logging.getLogger(__name__)
LANES = 2


def run_demo(out: Path, settings: DemoSettings | None = None) -> None:
    """Runs the demo and writes data, logs, models, `table.md` and `pictures.png` to `out`.

    Raises:
        ConfigError: the folder contains a demo with other settings.
        RassError: a step failed. The message contains the path and the last lines of its log.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s', handlers=[RichHandler(show_path=False)])
    settings = settings or DemoSettings()
    started = time.monotonic()
    out = out.resolve()
    with held(out):
        claim_folder(out, settings)
        _Lanes(out).run(settings)
        table = demo_table(out, settings)
        write_text(out / 'table.md', table)
        demo_page(out, settings)
    Console().print(table, markup=False)
    logger.info(
        'Done in %.0f s. Table: %s  pictures: %s', time.monotonic() - started, out / 'table.md', out / 'pictures.png'
    )


class _Lanes:
    """Runs steps in two parallel processes with one thread each.

    On two cores, this is faster than one process with two threads.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.costs = Costs(out)
        self.stopped = Event()

    def run(self, settings: DemoSettings) -> None:
        """Prepares the data, then runs each sequence of training and test steps in the next free process.

        A sequence waits only for sequences that were submitted earlier, which prevents a deadlock.
        """
        out = self.out
        self._in_order(data_steps(out, settings))
        with ThreadPoolExecutor(LANES) as pool:

            def start(steps: Sequence[Step], *needed: Future) -> Future:
                return pool.submit(self._in_order, steps, needed)

            restorer = start(training(out, settings, SCR))
            baseline = start(self._trained_and_tested(settings, BASELINE))
            tests = [*restorer_tests(out, settings), *segmentor_tests(out, settings, R2S)]
            others = [
                start(self._trained_and_tested(settings, LONGER)),
                start(self._trained_and_tested(settings, RASS)),
                start(self._trained_and_tested(settings, RASS_SCR), restorer),
                start(tests, restorer, baseline),
            ]
            sequences = [restorer, baseline, *others]
            wait(sequences, return_when=FIRST_EXCEPTION)
            self.stopped.set()  # after a failure, the other process ends after its current step
            for sequence in sequences:
                sequence.result()

    def _trained_and_tested(self, settings: DemoSettings, system: System) -> list[Step]:
        return [*training(self.out, settings, system), *segmentor_tests(self.out, settings, system)]

    def _in_order(self, steps: Sequence[Step], needed: Sequence[Future] = ()) -> None:
        for sequence in needed:
            sequence.result()
        for step in steps:
            if self.stopped.is_set():
                return
            started = time.monotonic()
            logger.info('%s ...', step.name)
            log = self.out / 'logs' / f'{step.name.replace(" ", "-")}.log'
            log.unlink(missing_ok=True)
            command = [sys.executable, '-W', 'ignore', '-m', 'rass_mm', *step.arguments]
            if step.trained:
                self.costs.begin(step.trained.stem)
            seconds = run_logged(command, log, f'Step {step.name!r}')
            if step.trained:
                self.costs.end(step.trained.stem, seconds)
            logger.info('%s done (%.0f s)', step.name, time.monotonic() - started)
