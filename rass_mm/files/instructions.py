"""Check of the instructions of a pickled checkpoint before they are run.

torch's safe reader runs no code in a file, but some instructions that it accepts take gigabytes or never end: the hash
of a tuple that contains another tuple ten times and so on, `bytearray(N)`, `torch.FloatTensor(N)`. This module runs the
same instructions without creating their objects, and accepts the calls that `torch.save` writes. It stops at an
instruction or a name that torch does not know, because torch stops there as well.
"""

import os
import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Sequence
from io import BytesIO
from typing import IO, Any

import torch

from rass_mm.errors import CheckpointError
from rass_mm.files.calls import check_call, check_key, refuse
from rass_mm.files.described import Call, Described, Entries, Parts, RefusedError, Tuple

MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of a file in the format that `torch.save` wrote before version 1.6."""
FREE = 2**22
"""Instructions and copied values that a file of any size may have."""


def check_instructions(filename: str, zipped: bool) -> None:
    """Checks the pickles that `torch.load` reads from a file. The time is linear in the size of the file.

    Args:
        filename: the checkpoint.
        zipped: whether it is a zip file. Older files are five pickles in a row, followed by the values.

    Raises:
        CheckpointError: a call or a key is not one that `torch.save` writes, or there are more instructions than the
            size of the file allows.
    """
    limit = FREE + 3 * os.path.getsize(filename)
    try:
        if zipped:  # torch's own reader, because two readers can find two different records in a crafted file
            reader = torch._C.PyTorchFileReader(filename)
            _Pickle(BytesIO(reader.get_record('data.pkl')), limit, zipped).run()
            return
        with open(filename, 'rb') as file:
            pickle = _Pickle(file, limit, zipped)
            if pickle.run() != MAGIC:
                return
            version, _, _, keys = (pickle.run() for _ in range(4))
            if type(version) is not int or not isinstance(keys, Parts):
                raise RefusedError('has another version or list of storages than torch.save writes')
            for key in keys.parts:
                check_key(key)
    except _StoppedError:
        return
    except RefusedError as refused:
        raise CheckpointError(
            f'Checkpoint {filename} was not loaded: it {refused}. If you trust its author, load it where it was '
            "created and save its tensors: torch.save({'state_dict': model.state_dict()}, path)."
        ) from None


class _StoppedError(Exception):
    """torch raises an error at this instruction."""


CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
VALUES = ('BININT', 'BININT1', 'BININT2', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINSTRING', 'LONG1')
SHORT_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


class _Pickle:
    """Stack machine with the instructions of torch's safe reader, on descriptions of objects.

    Args:
        file: the pickle.
        limit: number of instructions and copied values in all pickles of the file.
        zipped: whether the values of the tensors are in other records of a zip file.
    """

    def __init__(self, file: IO[bytes], limit: int, zipped: bool) -> None:
        self.file, self.left, self.zipped = file, limit, zipped
        self.storages: set[Any] = set()

    def run(self) -> Any:
        """Runs the next pickle of the file and returns a description of its object."""
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        while True:
            opcode = pickletools.code2op.get(self.file.read(1).decode('latin-1'))
            if opcode is None:
                raise _StoppedError
            self.spend(1)
            name, argument = opcode.name, opcode.arg.reader(self.file) if opcode.arg else None
            if name == 'STOP':
                return self.stack.pop()
            if name in VALUES:
                self.stack.append(argument)
            elif name in CONSTANTS:
                self.stack.append(CONSTANTS[name])
            elif name in SHORT_TUPLES:
                self._tuple(self._pop(SHORT_TUPLES[name]))
            elif name in ('BINGET', 'LONG_BINGET'):
                self.stack.append(self.memo[argument])
            elif name in ('BINPUT', 'LONG_BINPUT'):
                self.memo[argument] = self.stack[-1]
            elif name != 'PROTO':
                run = RUN.get(name)
                if run is None:
                    raise _StoppedError
                run(self, argument)

    def spend(self, cost: int) -> None:
        """Counts instructions or copied values."""
        self.left -= cost
        if self.left < 0:
            raise RefusedError('has more instructions than its size allows')

    def _pop(self, count: int) -> list[Any]:
        parts = [self.stack.pop() for _ in range(count)]
        return parts[::-1]

    def _marked(self) -> list[Any]:
        parts, self.stack = self.stack, self.outer.pop()
        return parts

    def _mark(self, _: Any) -> None:
        self.outer.append(self.stack)
        self.stack = []

    def _tuple(self, parts: Sequence[Any]) -> None:
        self.stack.append(Tuple(tuple(parts)))

    def _append(self, parts: Sequence[Any]) -> None:
        if not isinstance(self.stack[-1], Parts):
            raise _StoppedError
        self.stack[-1].parts.extend(parts)

    def _set(self, parts: Sequence[Any]) -> None:
        if not isinstance(self.stack[-1], Entries):
            raise _StoppedError
        for key in parts[::2]:
            check_key(key)
        self.stack[-1].count += len(parts) // 2

    def _global(self, argument: str) -> None:
        module, _, name = argument.partition(' ')
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.stack.append(Call(f'{module}.{name}'))

    def _storage(self, _: Any) -> None:
        found = self.stack.pop()
        parts = found.parts if isinstance(found, Tuple) else ()
        if len(parts) not in (5, 6) or parts[0] not in ('storage', b'storage') or type(parts[4]) is not int:
            raise RefusedError('has a storage that torch.save does not write')
        for part in (parts[2], parts[3]):
            check_key(part)
        if not isinstance(parts[2], str | bytes | int) or not isinstance(parts[3], str | bytes):
            raise RefusedError('has a storage that torch.save does not write')
        if parts[2] not in self.storages:  # older files: torch allocates a storage before it reads its values
            self.storages.add(parts[2])
            self.spend(0 if self.zipped else max(parts[4], 0))
        self.stack.append(Described('storage', parts[4]))

    def _call(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Call) or not isinstance(arguments, Tuple):
            raise RefusedError('calls something else than a function, which torch.save does not write')
        self.spend(sum(_length(part) for part in arguments.parts))
        self.stack.append(check_call(called, arguments.parts))

    def _new(self, _: Any) -> None:
        arguments, called = self.stack.pop(), self.stack.pop()
        if not isinstance(called, Call) or not isinstance(arguments, Tuple) or arguments.parts:
            raise refuse(called, arguments)
        self.stack.append(Entries() if called.name == 'collections.OrderedDict' else Described(called.name))

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Described) and self.stack[-1].kind == 'tensor':
            raise RefusedError('sets the state of a tensor, which torch.save does not write')
        self.spend(_length(state))


def _length(value: Any) -> int:
    """Returns the number of values that a call copies at most."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Tuple | Parts):
        return len(value.parts)
    return value.count if isinstance(value, Entries) else 0


RUN = {
    'MARK': _Pickle._mark,
    'TUPLE': lambda pickle, _: pickle._tuple(pickle._marked()),
    'EMPTY_LIST': lambda pickle, _: pickle.stack.append(Parts()),
    'EMPTY_DICT': lambda pickle, _: pickle.stack.append(Entries()),
    'EMPTY_SET': lambda pickle, _: pickle.stack.append(Described('set')),
    'APPEND': lambda pickle, _: pickle._append([pickle.stack.pop()]),
    'APPENDS': lambda pickle, _: pickle._append(pickle._marked()),
    'SETITEM': lambda pickle, _: pickle._set(pickle._pop(2)),
    'SETITEMS': lambda pickle, _: pickle._set(pickle._marked()),
    'GLOBAL': _Pickle._global,
    'BINPERSID': _Pickle._storage,
    'REDUCE': _Pickle._call,
    'NEWOBJ': _Pickle._new,
    'BUILD': _Pickle._build,
}
"""Instruction of torch's safe reader -> what it does. The most frequent ones are in `_Pickle.run`."""
