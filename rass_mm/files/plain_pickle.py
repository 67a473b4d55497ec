"""Reads the plain values of a pickled checkpoint without torch and without calling or importing anything.

Only numbers, strings, lists, tuples and dicts get their values. All other objects become an `Opaque`, or a `Stored` for
tensors, whatever their instructions say. The time is linear in the size of the pickle.
"""

import io
import pickletools
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rass_mm.errors import CheckpointError
from rass_mm.files.packs.schema import PACK

LARGEST = 2**26
"""Bytes of a pickle. That of a model with a thousand tensors has less than one MiB."""
KNOWN = ('torch.', 'collections.', 'numpy.', 'mmengine.logging.history_buffer.', '_codecs.encode', 'builtins.getattr')
CONTAINERS = ('builtins.set', 'builtins.bytearray', 'builtins.complex')
CONSTANTS: dict[str, Any] = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
EMPTY = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_TUPLE': tuple}
TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
VALUES = (
    *('BININT', 'BININT1', 'BININT2', 'BINFLOAT', 'BINUNICODE', 'SHORT_BINUNICODE', 'SHORT_BINSTRING', 'LONG1'),
    *('BINBYTES', 'SHORT_BINBYTES', 'BINSTRING'),
)
IGNORED = ('PROTO', 'FRAME')


@dataclass(frozen=True)
class Opaque:
    """Any object whose value is not read. `name` is that of its class or function."""

    name: str


@dataclass(frozen=True)
class Stored:
    """A tensor, whose values are in another record of the file.

    Attributes:
        kind: name of the type of its storage, e.g. 'ByteStorage'.
        key: name of the record.
        offset: index of its first value.
        size: its shape.
    """

    kind: str
    key: str
    offset: int
    size: tuple[Any, ...]


class UnknownPickleError(Exception):
    """Reason why a pickle is not the content of a checkpoint, as the end of a sentence about the file."""


def read_plain(path: Path) -> tuple[Any, 'Records']:
    """Reads the pickle of a zip file that `torch.save` wrote. Returns its content and the reader of its records.

    Raises:
        CheckpointError: the file is damaged, or not such a file, or names objects that could run code.
    """
    try:
        records = Records(path)
        return _Machine(records.read('data.pkl', LARGEST)).run(), records
    except UnknownPickleError as reason:
        raise CheckpointError(f'{path} {reason}.') from None
    except (zipfile.BadZipFile, OSError, ValueError, IndexError, KeyError, TypeError, zlib.error) as error:
        raise CheckpointError(f'{path} is damaged, or not a checkpoint that torch.save wrote ({error}).') from None
    except (NotImplementedError, RuntimeError, AttributeError) as error:  # of zip files that are encrypted or crafted
        raise CheckpointError(f'{path} is not a checkpoint that torch.save wrote ({error}).') from None


def other_archive(names: Sequence[str]) -> str:
    """Describes a zip file that is not a checkpoint by the names of its records, as the end of a sentence about it."""
    if any(name.rpartition('/')[2] == PACK for name in names):
        return 'is a zip file with a model pack. Unpack it, and pass the folder.'
    return 'is a zip file, but not a checkpoint that torch.save wrote. Pass the checkpoint itself.'


class Records:
    """Records of a zip file that `torch.save` wrote.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
            names = [name for name in found if name.rpartition('/')[2] == 'data.pkl']
        if len(names) != 1:
            raise UnknownPickleError(other_archive(found).removesuffix('.'))
        self.prefix = names[0].rpartition('/')[0]

    def read(self, name: str, most: int) -> bytes:
        """Returns a record of at most `most` bytes."""
        with zipfile.ZipFile(self.path) as archive, archive.open(f'{self.prefix}/{name}') as record:
            data = record.read(most + 1)
        if len(data) > most:
            raise UnknownPickleError(f'has a record {name} of more than {most:,} bytes')
        return data

    def text_of(self, tensor: Any, most: int = 2**22) -> str:
        """Returns the values of a tensor of bytes as text.

        Raises:
            CheckpointError: the value is something else, or the record is missing or damaged.
        """
        try:
            if not isinstance(tensor, Stored) or not tensor.kind.endswith('ByteStorage') or len(tensor.size) != 1:
                raise ValueError('not a tensor of bytes')
            data = self.read(f'data/{tensor.key}', most)
            return data[tensor.offset : tensor.offset + tensor.size[0]].decode()
        except (
            UnknownPickleError,
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
            zipfile.BadZipFile,
        ) as error:
            raise CheckpointError(f'{self.path}: its record of provenance cannot be read ({error}).') from None


class _Machine:
    """Stack machine that builds plain values.

    Args:
        data: the pickle.
    """

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Runs all instructions and returns the object."""
        while True:
            opcode = pickletools.code2op.get(self.file.read(1).decode('latin-1'))
            if opcode is None:
                raise UnknownPickleError('is damaged, or not a checkpoint that torch.save wrote')
            argument = opcode.arg.reader(self.file) if opcode.arg else None
            if opcode.name == 'STOP':
                return self.stack.pop()
            self._step(opcode.name, argument)

    def _step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in TUPLES:
            self.stack.append(tuple(self._pop(TUPLES[name])))
        elif name in ('BINGET', 'LONG_BINGET'):
            self.stack.append(self.memo[argument])
        elif name in ('BINPUT', 'LONG_BINPUT'):
            self.memo[argument] = self.stack[-1]
        elif name not in IGNORED:
            self._other(name, argument)

    def _other(self, name: str, argument: Any) -> None:
        match name:
            case 'MARK':
                self.marks.append(len(self.stack))
            case 'MEMOIZE':
                self.memo[len(self.memo)] = self.stack[-1]
            case 'TUPLE':
                self.stack.append(tuple(self._marked()))
            case 'APPEND' | 'APPENDS':
                parts = self._pop(1) if name == 'APPEND' else self._marked()
                if isinstance(self.stack[-1], list):
                    self.stack[-1].extend(parts)
            case 'SETITEM' | 'SETITEMS':
                self._set(self._pop(2) if name == 'SETITEM' else self._marked())
            case 'GLOBAL':
                self.stack.append(_named(*argument.split(' ', 1)))
            case 'STACK_GLOBAL':
                self.stack.append(_named(*map(str, self._pop(2))))
            case 'BINPERSID':
                self.stack.append(_storage(self.stack.pop()))
            case 'REDUCE' | 'NEWOBJ':
                given, called = self.stack.pop(), self.stack.pop()
                self.stack.append(_called(called, given))
            case 'BUILD':
                self.stack.pop()
            case 'EMPTY_SET':
                self.stack.append(Opaque('builtins.set'))
            case 'ADDITEMS':
                self._marked()
            case _:
                raise UnknownPickleError(f'has the instruction {name}, which torch.save does not write')

    def _pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise UnknownPickleError('is damaged')
        parts = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return parts

    def _marked(self) -> list[Any]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _set(self, parts: list[Any]) -> None:
        if isinstance(self.stack[-1], dict):
            pairs = zip(parts[::2], parts[1::2], strict=True)
            # Other keys, such as nested tuples, can take forever to hash.
            self.stack[-1].update((key, value) for key, value in pairs if isinstance(key, str | int))


def _named(module: str, name: str = '') -> Opaque:
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))  # of Python 2
    name = f'{module}.{name}'
    if not name.startswith(KNOWN) and name not in CONTAINERS:
        raise UnknownPickleError(f'contains Python objects that could run code: {name[:80]}')
    return Opaque(name)


def _storage(parts: Any) -> Any:
    if not isinstance(parts, tuple) or len(parts) < 5 or not isinstance(parts[1], Opaque):
        return Opaque('storage')
    return Stored(parts[1].name, str(parts[2])[:100], 0, ())


def _called(called: Any, given: Any) -> Any:
    name = called.name if isinstance(called, Opaque) else ''
    parts = given if isinstance(given, tuple) else ()
    if name == 'collections.OrderedDict':
        return {}
    if name.startswith('torch._utils._rebuild_tensor') and len(parts) > 2 and isinstance(parts[0], Stored):
        offset, size = parts[1:3]
        if type(offset) is int and offset >= 0 and isinstance(size, tuple):
            return Stored(parts[0].kind, parts[0].key, offset, size)
    if name == 'torch._utils._rebuild_parameter' and parts:
        return parts[0]
    return Opaque(name or 'object')
