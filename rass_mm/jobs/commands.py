"""Record of the command of a shard, from which the same shard can be run again, or another one of its job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainValidator
from typing_extensions import TypedDict

from rass_mm.files.schemas import FileName

SHARDS, SHARD = '--shards', '--shard'
END = '--'
"""Argument after which all others are names of files."""


def _argument(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError('a text')
    return value


class CommandRecord(TypedDict):
    """Record of a command in the header of a shard's manifest: its name, its arguments, and its working directory.

    The arguments do not contain the shard.
    """

    name: FileName
    arguments: list[Annotated[str, PlainValidator(_argument)]]
    folder: FileName


@dataclass(frozen=True)
class Command:
    """Command that processes one shard of a job.

    Args:
        name: name of the command, e.g. 'restore'.
        arguments: its arguments, with or without those that choose the shard.
        folder: absolute path of its working directory.
    """

    name: str
    arguments: Sequence[str]
    folder: str

    def record(self) -> CommandRecord:
        """Returns the record of the command."""
        return {'name': self.name, 'arguments': without_shard(self.arguments), 'folder': self.folder}


def without_shard(arguments: Sequence[str]) -> list[str]:
    """Returns arguments without those that choose a shard."""
    kept, given = [], list(arguments)
    while given:
        argument = given.pop(0)
        if argument == END:
            return [*kept, argument, *given]
        if argument in (SHARDS, SHARD):
            del given[:1]
        elif not argument.startswith((f'{SHARDS}=', f'{SHARD}=')):
            kept.append(argument)
    return kept


def with_shard(arguments: Sequence[str], number: int, count: int) -> list[str]:
    """Returns arguments that choose a shard in addition to the given ones."""
    end = arguments.index(END) if END in arguments else len(arguments)
    return [*arguments[:end], SHARDS, str(count), SHARD, str(number), *arguments[end:]]
