"""Cases of the campaign: what is given to which command, and what must come of it."""

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

Prepare = Callable[[Path, 'Kit'], None]  # noqa: F821  (kit.py imports this module)
Check = Callable[[Path], str | None]


@dataclass(frozen=True)
class Case:
    """One input at one door.

    Args:
        name: unique name, `group/kind/door`.
        command: arguments of `rass-mm`, or a line of them; `$FX` is the folder of the kit. A function is called with
            the working directory instead, and its errors count as those of a command.
        ok: whether the case is a valid control, which must succeed.
        named: patterns of which each must be found in the messages of an error.
        prepare: makes the input in the working directory.
        check: called with the working directory at the end; returns what is wrong, or None.
        malicious: whether the input tries to run code or to exhaust the machine.
    """

    name: str
    command: str | list[str] | Callable[[Path], object]
    ok: bool = False
    named: tuple[str, ...] = ()
    prepare: Prepare | None = None
    check: Check | None = None
    malicious: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Returns the first part of the name."""
        return self.name.partition('/')[0]

    def arguments(self, kit: Path) -> list[str]:
        """Returns the arguments of the command."""
        parts = shlex.split(self.command) if isinstance(self.command, str) else list(self.command)
        return [part.replace('$FX', str(kit)) for part in parts]


@dataclass(frozen=True)
class Outcome:
    """Result of a case: status, duration, memory and text.

    Args:
        status: exit status; negative for the number of a signal.
        seconds: wall-clock time.
        peak: peak memory in MiB beyond that at the start of the command.
        text: standard output and standard error.
        canary: whether code of the input ran.
        hung: whether it was stopped at the time limit.
    """

    status: int
    seconds: float
    peak: float
    text: str
    canary: bool = False
    hung: bool = False


SECONDS = 30
MEBIBYTES = 2048
TRACEBACK = 'Traceback (most recent call last)'


def verdict(case: Case, outcome: Outcome, wrong: str | None) -> list[str]:
    """Returns what is wrong with the outcome of a case; an empty list if nothing is.

    Args:
        case: the case.
        outcome: what it did.
        wrong: the answer of the case's own check.
    """
    faults = []
    if outcome.canary:
        faults.append('code of the input ran')
    if outcome.hung:
        faults.append(f'still running after {SECONDS} s')
    if outcome.peak > MEBIBYTES:
        faults.append(f'took {outcome.peak:.0f} MiB')
    if TRACEBACK in outcome.text:
        faults.append('traceback')
    if case.ok and outcome.status:
        faults.append(f'exit status {outcome.status} of a valid input')
    if not case.ok and not outcome.hung and outcome.status not in (1, 2):
        faults.append(f'exit status {outcome.status}, an error was expected')
    if not case.ok:
        lacking = [pattern for pattern in case.named if not re.search(pattern, outcome.text)]
        faults += [f'the message lacks /{pattern}/' for pattern in lacking]
    return faults + ([wrong] if wrong else [])


def unique(cases: Iterable[Case]) -> list[Case]:
    """Returns the cases as a list, and raises a ValueError if two have the same name."""
    found: dict[str, Case] = {}
    for case in cases:
        if found.setdefault(case.name, case) is not case:
            raise ValueError(f'two cases are named {case.name}')
    return list(found.values())
