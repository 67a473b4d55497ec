"""Calls and keys in a pickled checkpoint that `torch.save` writes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from rass_mm.files.described import Call, Described, Entries, Parts, RefusedError, Tuple

LONGEST_KEY = 64
"""Values in a tuple that is a key."""
LARGEST_KEY = 2**60
"""Integers below this have different hashes. An address in memory, which old optimizers have as keys, is below it."""
ATOMS = (str, bytes, int, float, bool, type(None))


def check_key(key: Any) -> None:
    """Raises a `RefusedError` if a key of a dict is something else than a number, a string or a short tuple of them."""
    if isinstance(key, Tuple):
        if key.size > LONGEST_KEY:
            raise RefusedError('has a nested or long tuple as a key of a dict')
        for part in key.parts:
            check_key(part)
    elif isinstance(key, Parts | Entries):
        raise RefusedError('has a list or a dict as a key of a dict')
    elif type(key) is int and abs(key) > LARGEST_KEY:
        raise RefusedError('has an integer of more than 60 bits as a key of a dict')


def refuse(called: Any, arguments: Any) -> RefusedError:
    """Returns the error for a call."""
    name = called.name if isinstance(called, Call) else 'an object'
    given = len(arguments.parts) if isinstance(arguments, Tuple) else len(arguments) if arguments else 0
    return RefusedError(f'calls {name} with {given} arguments in a way in which torch.save does not')


def check_call(called: Call, arguments: Sequence[Any]) -> Any:
    """Returns a description of the result of a call.

    Args:
        called: the function or class.
        arguments: descriptions of its arguments.

    Raises:
        RefusedError: torch's safe reader would run this call, but `torch.save` does not write it.
    """
    name = called.name.replace('numpy.core.', 'numpy._core.')
    check = CALLS.get(name)
    if check is None:
        if name.startswith(('torch.', 'collections.')) or name in _allowed():
            raise refuse(called, Tuple(tuple(arguments)))
        return Described(name)  # torch refuses the name
    result = check(arguments)
    if result is None:
        raise refuse(called, Tuple(tuple(arguments)))
    return result


def _allowed() -> set[str]:
    """Returns the names that torch's safe reader accepts in addition to its own."""
    pairs = [part if isinstance(part, tuple) else (part, None) for part in torch.serialization.get_safe_globals()]
    return {name or f'{part.__module__}.{part.__qualname__}' for part, name in pairs}


def _integers(value: Any) -> bool:
    return isinstance(value, Tuple) and all(type(part) is int for part in value.parts)


def _of_atoms(*counts: int) -> Callable[[Sequence[Any]], Any]:
    """Returns a check of calls with numbers, strings and None as arguments."""
    return lambda given: (
        Described('value') if len(given) in counts and all(isinstance(part, ATOMS) for part in given) else None
    )


def _bytes(given: Sequence[Any]) -> Any:
    encoded = len(given) == 2 and all(isinstance(part, str | bytes) for part in given)
    if encoded and given[1] in ('latin1', 'latin-1', b'latin1', b'latin-1'):
        return b''
    return None


def _bytearray(given: Sequence[Any]) -> Any:
    made = not given or (len(given) == 1 and isinstance(given[0], bytes)) or _bytes(given) is not None
    return Described('bytearray') if made else None


def _ordered(given: Sequence[Any]) -> Any:
    """Python 2 writes an OrderedDict as a call with a list of pairs."""
    if not given:
        return Entries()
    if len(given) != 1 or not isinstance(given[0], Parts):
        return None
    for pair in given[0].parts:
        if not isinstance(pair, Parts | Tuple) or len(pair.parts) != 2:
            return None
        check_key(pair.parts[0])
    return Entries(len(given[0].parts))


def _counter(given: Sequence[Any]) -> Any:
    return Entries() if not given or (len(given) == 1 and isinstance(given[0], Entries)) else None


def _set(given: Sequence[Any]) -> Any:
    if given and (len(given) != 1 or not isinstance(given[0], Parts | Tuple)):
        return None
    for part in given[0].parts if given else ():
        check_key(part)
    return Described('set')


def _size(given: Sequence[Any]) -> Any:
    return given[0] if len(given) == 1 and _integers(given[0]) else None


def _tensor(given: Sequence[Any]) -> Any:
    if len(given) < 4 or not isinstance(given[0], Described) or given[0].kind != 'storage' or type(given[1]) is not int:
        return None
    if not _integers(given[2]) or not _integers(given[3]):
        return None
    size, stride, stored = given[2].parts, given[3].parts, given[0].size
    last = given[1] + sum((length - 1) * step for length, step in zip(size, stride, strict=False))
    if len(size) != len(stride) or min((*size, *stride, given[1]), default=0) < 0:
        return None
    if all(size) and last >= max(stored, 1):  # torch would allocate the values that are missing
        raise RefusedError(f'has a tensor with values beyond the {stored:,} that are stored for it')
    count = math.prod(size)
    return Described('tensor', count if count > stored else 0)


def _quantized(given: Sequence[Any]) -> Any:
    """torch allocates a quantized tensor before it reads the values."""
    made = _tensor(given)
    return made if made is not None and not made.size else None


def _sparse(given: Sequence[Any]) -> Any:
    if len(given) != 2 or not isinstance(given[0], Described) or not isinstance(given[1], Tuple):
        return None
    repeated = any(isinstance(part, Described) and part.size for part in given[1].parts)
    return None if repeated else Described('tensor')


def _meta(given: Sequence[Any]) -> Any:
    return Described('tensor') if len(given) == 4 and _integers(given[1]) and _integers(given[2]) else None


def _parameter(given: Sequence[Any]) -> Any:
    return given[0] if given and isinstance(given[0], Described) and given[0].kind == 'tensor' else None


def _of_type(given: Sequence[Any]) -> Any:
    if len(given) != 4 or not isinstance(given[0], Call) or not isinstance(given[2], Tuple):
        return None
    return check_call(given[0], given[2].parts) if given[0].name.startswith('torch._utils._rebuild_') else None


def _array(given: Sequence[Any]) -> Any:
    """An array is made without values, and gets them afterwards."""
    empty = len(given) == 3 and _integers(given[1]) and given[1].parts == (0,)
    return Described('array') if empty else None


def _scalar(given: Sequence[Any]) -> Any:
    return Described('scalar') if len(given) == 2 and isinstance(given[1], bytes | str) else None


def _statistic(given: Sequence[Any]) -> Any:
    return Described('method') if len(given) == 2 and isinstance(given[1], str) else None


CALLS: dict[str, Callable[[Sequence[Any]], Any]] = {
    'collections.OrderedDict': _ordered,
    'collections.Counter': _counter,
    'builtins.set': _set,
    'builtins.bytearray': _bytearray,
    'builtins.complex': _of_atoms(1, 2),
    'builtins.getattr': _statistic,
    '_codecs.encode': _bytes,
    'torch.Size': _size,
    'torch.device': _of_atoms(1, 2),
    'torch.serialization._get_layout': _of_atoms(1),
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor,
    'torch._utils._rebuild_qtensor': _quantized,
    'torch._utils._rebuild_sparse_tensor': _sparse,
    'torch._utils._rebuild_meta_tensor_no_storage': _meta,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch._tensor._rebuild_from_type_v2': _of_type,
    'numpy.dtype': _of_atoms(1, 2, 3),
    'numpy._core.multiarray._reconstruct': _array,
    'numpy._core.multiarray.scalar': _scalar,
}
"""Name -> check of its arguments, which returns a description of the result, or None for a call to refuse."""
