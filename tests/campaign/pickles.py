"""Pickles that would run code, make no sense, or describe more than they hold, assembled from their instructions."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator

COMMAND = b'touch "$RASS_CANARY"'
SOURCE = b"import os; open(os.environ['RASS_CANARY'], 'w').close()"
EXPRESSION = b"__import__('os').system('touch \"$RASS_CANARY\"')"
SYSTEM = b'cos\nsystem\n'


def text(value: bytes) -> bytes:
    """Returns the instruction that pushes a string."""
    return b'X' + struct.pack('<I', len(value)) + value


def short(value: bytes) -> bytes:
    """Returns the instruction of protocol 4 that pushes a short string."""
    return b'\x8c' + bytes([len(value)]) + value


def call(name: str, *arguments: bytes) -> bytes:
    """Returns the instructions that call `module.name` with instructions of arguments."""
    module, _, function = name.rpartition('.')
    return f'c{module}\n{function}\n'.encode() + b'(' + b''.join(arguments) + b'tR'


def stack_call(module: bytes, name: bytes, *arguments: bytes) -> bytes:
    """Returns instructions of protocol 4 that call a name."""
    return short(module) + short(name) + b'\x93(' + b''.join(arguments) + b'tR'


CALLED = {
    'os.system': (text(COMMAND),),
    'posix.system': (text(COMMAND),),
    'nt.system': (text(COMMAND),),
    'os.popen': (text(COMMAND),),
    'subprocess.call': (text(COMMAND), b'I-1\n', b'N', b'N', b'N', b'N', b'N', b'I01\n', b'I01\n'),
    'subprocess.getoutput': (text(COMMAND),),
    'pty.spawn': (text(COMMAND),),
    'builtins.eval': (text(EXPRESSION),),
    'builtins.exec': (text(SOURCE),),
    '__builtin__.eval': (text(EXPRESSION),),
    'builtins.__import__': (text(b'antigravity'),),
    'builtins.open': (text(b'opened'), text(b'w')),
    'builtins.compile': (text(SOURCE), text(b'x'), text(b'exec')),
    'importlib.import_module': (text(b'antigravity'),),
    'runpy.run_path': (text(b'evil.py'),),
    'runpy._run_code': (text(SOURCE), b'}'),
    'timeit.timeit': (text(SOURCE), text(b'pass'), b'cbuiltins\nabs\n', b'I1\n'),
    'code.interact': (text(b'hello'),),
    'pickle.loads': (b'B' + struct.pack('<I', 4) + b'N.N.',),
    'torch.load': (text(b'evil.pth'),),
    'torch.jit.load': (text(b'evil.pth'),),
    'torch.hub.load': (text(b'.'), text(b'evil')),
    'torch.ops.load_library': (text(b'evil.so'),),
    'torch.serialization.load': (text(b'evil.pth'),),
    'torch.utils.collect_env.run': (text(COMMAND),),
    'numpy.load': (text(b'evil.npy'),),
    'numpy.testing._private.utils.runstring': (text(SOURCE), b'}'),
    'shutil.rmtree': (text(b'.'),),
    'pydoc.locate': (text(b'os.system'),),
    'operator.attrgetter': (text(b'system'),),
    'functools.partial': (SYSTEM, text(COMMAND)),
    'types.FunctionType': (b'N', b'}'),
    'mmengine.config.Config.fromfile': (text(b'evil.py'),),
    'mmengine.utils.call_command': (text(COMMAND),),
    'mmengine.config.Config.fromstring': (text(SOURCE), text(b'.py')),
    'rass_mm.cli.guard.guarded': (b'N',),
    'ctypes.CDLL': (text(b'evil.so'),),
    'multiprocessing.util.spawnv_passfds': (text(b'/bin/sh'), b']', b']'),
}
"""Functions that run something, and the instructions of their arguments."""


def running() -> Iterator[tuple[str, bytes]]:
    """Yields a name and a pickle that would run code when it is loaded by Python's unpickler."""
    for name, arguments in CALLED.items():
        yield f'GLOBAL {name}', b'\x80\x02' + call(name, *arguments) + b'.'
    for protocol in (0, 1, 2, 3, 4, 5, 99):
        head = b'' if protocol < 2 else b'\x80' + bytes([protocol])
        yield f'protocol {protocol}', head + call('os.system', text(COMMAND)) + b'.'
        yield (
            f'protocol {protocol} in a dict',
            head + b'}' + text(b'state_dict') + call('os.system', text(COMMAND)) + b's.',
        )
    get = b'cbuiltins\ngetattr\n('
    yield from {
        'STACK_GLOBAL': b'\x80\x04' + stack_call(b'os', b'system', text(COMMAND)) + b'.',
        'STACK_GLOBAL with a frame': b'\x80\x04\x95'
        + struct.pack('<Q', 60)
        + stack_call(b'os', b'system', text(COMMAND))
        + b'.',
        'STACK_GLOBAL of a dotted name': b'\x80\x04'
        + stack_call(b'torch', b'serialization.os.system', text(COMMAND))
        + b'.',
        'STACK_GLOBAL of a memoised name': b'\x80\x04'
        + short(b'os')
        + b'\x94'
        + short(b'system')
        + b'\x94h\x00h\x01\x93('
        + text(COMMAND)
        + b'tR.',
        'GLOBAL of a dotted name': b'ctorch\nserialization.os.system\n(' + text(COMMAND) + b'tR.',
        'INST': b'(' + b"S'" + COMMAND.replace(b'"', b'') + b"'\nios\nsystem\n.",
        'OBJ': b'(' + SYSTEM + text(COMMAND) + b'o.',
        'NEWOBJ': b'\x80\x02csubprocess\nPopen\n(' + text(COMMAND) + b't\x81.',
        'NEWOBJ_EX': b'\x80\x04' + short(b'subprocess') + short(b'Popen') + b'\x93(' + text(COMMAND) + b't}\x92.',
        'BUILD': b'c__main__\nAnything\n)\x81}' + text(b'__setstate__') + SYSTEM + b'sb' + text(COMMAND) + b'b.',
        'BUILD of a tensor': b'ctorch._utils\n_rebuild_tensor\n}' + text(b'__call__') + SYSTEM + b'sb)R.',
        'BUILD of an OrderedDict': b'ccollections\nOrderedDict\n)R}' + text(b'__reduce__') + SYSTEM + b'sb.',
        'EXT1': b'\x80\x02\x82\x01)R.',
        'EXT2': b'\x80\x02\x83\x01\x00)R.',
        'EXT4': b'\x80\x02\x84\x01\x00\x00\x00)R.',
        'PERSID': b'Pos.system\n.',
        'BINPERSID': b'\x80\x02(' + text(b'storage') + SYSTEM + text(b'0') + text(b'cpu') + b'I1\ntQ.',
        'BINPERSID of a function': b'\x80\x02(' + SYSTEM + text(COMMAND) + b'tQ.',
        'memo': SYSTEM + b'q\x00' + b'0h\x00(' + text(COMMAND) + b'tR.',
        'long memo': SYSTEM + b'r\xff\xff\x00\x000j\xff\xff\x00\x00(' + text(COMMAND) + b'tR.',
        'memo replaced': b'ccollections\nOrderedDict\nq\x00' + SYSTEM + b'q\x00' + b'0h\x00(' + text(COMMAND) + b'tR.',
        'text memo': SYSTEM + b'p7\n0g7\n(' + text(COMMAND) + b'tR.',
        'getattr of an allowed class': get + b'ccollections\nOrderedDict\n' + text(b'__subclasses__') + b'tR)R.',
        'getattr of a history': get + b'cmmengine.logging.history_buffer\nHistoryBuffer\n' + text(b'__init__') + b'tR.',
        'getattr of a function': get
        + b'cmmengine.logging.history_buffer\nHistoryBuffer\n'
        + text(b'mean.__globals__')
        + b'tR.',
        'REDUCE of REDUCE': get
        + call('builtins.__import__', text(b'os'))
        + text(b'system')
        + b'tR('
        + text(COMMAND)
        + b'tR.',
        'copyreg': b'ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncbuiltins\nobject\nNtR.',
        'copyreg __newobj__': b'ccopyreg\n__newobj__\n(csubprocess\nPopen\n' + text(COMMAND) + b'tR.',
        'after STOP': b'N.' + call('os.system', text(COMMAND)) + b'.',
        'second pickle': pickle.dumps({'state_dict': {}}, 2) + call('os.system', text(COMMAND)) + b'.',
        'tensor hooks': call('torch._utils._rebuild_parameter', b'N', b'I01\n', b'(' + SYSTEM + b't') + b'.',
        'rebuild from a type': call(
            'torch._tensor._rebuild_from_type_v2', SYSTEM, b'N', b'(' + text(COMMAND) + b't', b'}'
        )
        + b'.',
        'device': call('torch.device', call('os.system', text(COMMAND))) + b'.',
        'numpy object array': call('numpy._core.multiarray._reconstruct', b'cnumpy\nndarray\n', b'(I0\nt', text(b'b'))
        + b'(I1\n(I1\nt'
        + call('numpy.dtype', text(b'O8'), b'I00\n', b'I01\n')
        + b'I00\n('
        + call('os.system', text(COMMAND))
        + b'ltb.',
        'set item': b'}' + text(b'a') + call('os.system', text(COMMAND)) + b's.',
        'list of many': b'(' + call('os.system', text(COMMAND)) * 3 + b'l.',
    }.items()


def senseless() -> Iterator[tuple[str, bytes]]:
    """Yields a name and a pickle whose instructions make no sense or claim large sizes."""
    odict, tensor = b'ccollections\nOrderedDict\n', b'ctorch._utils\n_rebuild_tensor_v2\n'
    yield from {
        'unknown protocol': b'\x80\x63}.',
        'no STOP': b'\x80\x02}',
        'nothing to return': b'\x80\x02.',
        'stack underflow': b'\x80\x020000.',
        'no mark': b'\x80\x02t.',
        'unknown memo': b'\x80\x02h\x09.',
        'unknown instruction': b'\x80\x02\xff.',
        'pop of a mark': b'\x80\x0210.',
        'REDUCE of a number': b'\x80\x02I5\n)R.',
        'REDUCE without a tuple': b'\x80\x02' + odict + b'I5\nR.',
        'REDUCE with wrong arguments': b'\x80\x02' + tensor + b'(I5\ntR.',
        'OrderedDict of a number': b'\x80\x02' + odict + b'(I5\ntR.',
        'Size of a text': b'\x80\x02ctorch\nSize\n((' + text(b'a') + b'ttR.',
        'unhashable key': b'\x80\x02}]I1\ns.',
        'SETITEM of a list': b'\x80\x02]I1\nI1\ns.',
        'APPEND to a dict': b'\x80\x02}I1\na.',
        'APPENDS to a number': b'\x80\x02I1\n(I1\ne.',
        'BUILD of a number': b'\x80\x02I1\n}b.',
        'BUILD with a list': b'\x80\x02' + odict + b')R]b.',
        'wrong number': b'\x80\x02Iabc\n.',
        'wrong float': b'\x80\x02Fabc\n.',
        'text that is not UTF-8': b'\x80\x02X\x02\x00\x00\x00\xff\xfe.',
        'long text': b'\x80\x02X\xff\xff\xff\x7fabc.',
        'long text of 8 bytes': b'\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.',
        'long bytes': b'\x80\x03B\xff\xff\xff\x7fabc.',
        'bytearray of 2 EiB': b'\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x1fabc.',
        'long number': b'\x80\x02\x8b\xff\xff\xff\x7f\x01.',
        'negative long number': b'\x80\x02\x8b\xff\xff\xff\xff\x01.',
        'frame beyond the end': b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.',
        'large memo index': b'\x80\x02}r\xff\xff\xff\xff.',
        'quantized tensor without arguments': b'\x80\x02ctorch._utils\n_rebuild_qtensor\n)R.',
        'nested tensor without arguments': b'\x80\x02ctorch._utils\n_rebuild_nested_tensor\n)R.',
        'sparse tensor without arguments': b'\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n)R.',
        'meta tensor without arguments': b'\x80\x02ctorch._utils\n_rebuild_meta_tensor_no_storage\n)R.',
        'parameter of a number': b'\x80\x02ctorch._utils\n_rebuild_parameter\n(I5\nI01\nNtR.',
        'tensor of a text': b'\x80\x02' + tensor + b'(' + text(b'a') + b'I0\n(I1\nt(I1\ntI00\nNtR.',
        'storage of a text': b'\x80\x02' + text(b'storage') + b'Q.',
        'storage without a type': b'\x80\x02(' + text(b'storage') + text(b'x') + text(b'0') + text(b'cpu') + b'I1\ntQ.',
        'device of a text': b'\x80\x02ctorch\ndevice\n(' + text(b'nowhere') + b'tR.',
        'dtype called': b'\x80\x02ctorch\nfloat32\n)R.',
        'unknown torch name': b'\x80\x02ctorch\nNothing\n)R.',
        'unknown module': b'\x80\x02cno_such_module\nname\n)R.',
        'numpy scalar of a text': b'\x80\x02cnumpy._core.multiarray\nscalar\n(' + text(b'a') + text(b'b') + b'tR.',
        'numpy dtype of a text': b'\x80\x02cnumpy\ndtype\n(' + text(b'no type') + b'I00\nI01\ntR.',
        'history of nothing': b'\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n)R.',
        'Counter': b'\x80\x02ccollections\nCounter\n(I5\ntR.',
        'only a text': b'\x80\x02' + text(b'hello') + b'.',
        'only a number': b'\x80\x02I5\n.',
        'None': b'\x80\x02N.',
        'a list': b'\x80\x02].',
    }.items()


def storage(key: bytes = b'0', size: int = 1, place: bytes = b'cpu', kind: bytes = b'FloatStorage') -> bytes:
    """Returns the instructions of a storage in a zip file."""
    number = f'L{size}L\n'.encode()
    return b'(' + text(b'storage') + b'ctorch\n' + kind + b'\n' + text(key) + text(place) + number + b'tQ'


def tensor(held: bytes, offset: int = 0, size: tuple[int, ...] = (1,), stride: tuple[int, ...] = (1,)) -> bytes:
    """Returns the instructions of a tensor."""
    numbers = [b'(' + b''.join(f'L{value}L\n'.encode() for value in values) + b't' for values in (size, stride)]
    return (
        b'ctorch._utils\n_rebuild_tensor_v2\n('
        + held
        + f'L{offset}L\n'.encode()
        + b''.join(numbers)
        + b'I00\nccollections\nOrderedDict\n)RtR'
    )


def strange_tensors() -> Iterator[tuple[str, bytes]]:
    """Yields a name and a pickle for a zip file with the storage `0` of one float."""
    for name, made in {
        'negative storage': tensor(storage(size=-1)),
        'storage larger than its record': tensor(storage(size=1000), size=(1000,)),
        'storage of 2**62': tensor(storage(size=2**62), size=(2**62,)),
        'absent storage': tensor(storage(b'7')),
        'storage outside': tensor(storage(b'../../../etc/passwd')),
        'absolute storage': tensor(storage(b'/etc/passwd')),
        'storage of a foreign device': tensor(storage(place=b'evil:0')),
        'storage of an unknown type': tensor(storage(kind=b'NoStorage')),
        'negative offset': tensor(storage(), -5),
        'offset beyond the end': tensor(storage(), 10**6),
        'negative stride': tensor(storage(), 0, (2,), (-1,)),
        'stride beyond the end': tensor(storage(), 0, (2,), (10**9,)),
        'negative size': tensor(storage(), 0, (-5,), (1,)),
        'more sizes than strides': tensor(storage(), 0, (1, 1), (1,)),
        'one value repeated': tensor(storage(), 0, (10**6, 10**6), (0, 0)),
        'one value repeated 2**60 times': tensor(storage(), 0, (2**60,), (0,)),
        '70 dimensions': tensor(storage(), 0, (1,) * 70, (1,) * 70),
    }.items():
        yield name, b'\x80\x02}' + text(b'state_dict') + b'}' + text(b'weight') + made + b'ss.'


def laughs(start: bytes, item: bytes, levels: int = 40) -> bytes:
    """Returns a pickle in which each of many containers holds the one before ten times."""
    made = b'\x80\x02' + start + b'q\x00'
    for level in range(levels):
        made += b'0' + item.replace(b'@', b'h' + bytes([level])) + b'q' + bytes([level + 1])
    return made + b'.'


def large_structures() -> Iterator[tuple[str, bytes]]:
    """Yields a name and a small pickle of a large, deep or infinite structure."""
    dict_of_ten = b'}' + b''.join(text(str(n).encode()) + b'@s' for n in range(10))
    yield from {
        'laughs of lists': laughs(b']', b'(' + b'@' * 10 + b'l'),
        'laughs of tuples': laughs(b')', b'(' + b'@' * 10 + b't'),
        'laughs of dicts': laughs(b'}', dict_of_ten),
        'laughs in a state dict': b'\x80\x02}' + text(b'state_dict') + laughs(b'}', dict_of_ten)[2:-1] + b's.',
        'list that contains itself': b'\x80\x02]q\x00h\x00a.',
        'dict that contains itself': b'\x80\x02}q\x00' + text(b'state_dict') + b'h\x00s.',
        'tuple that contains itself': b'\x80\x02]q\x00(h\x00ta.',
        'dict that contains itself below': b'\x80\x02}q\x00' + text(b'state_dict') + b'}' + text(b'a') + b'h\x00ss.',
        'deep lists': b'\x80\x02' + b']' * 100_000 + b'a' * 99_999 + b'.',
        'deep tuples': b'\x80\x02)' + b'\x85' * 100_000 + b'.',
        'deep dicts': b'\x80\x02' + (b'}' + text(b'a')) * 50_000 + b'N' + b's' * 50_000 + b'.',
        'lists 70 deep': b'\x80\x02' + b']' * 70 + b'a' * 69 + b'.',
        'deep OrderedDicts': b'\x80\x02'
        + (b'ccollections\nOrderedDict\n)R' + text(b'a')) * 20_000
        + b'N'
        + b's' * 20_000
        + b'.',
        'deep dict in meta': b'\x80\x02}' + text(b'meta') + (b'}' + text(b'a')) * 20_000 + b'N' + b's' * 20_001 + b'.',
    }.items()


def nested_tuple(levels: int = 10) -> bytes:
    """Returns the instructions of a tuple whose hash takes 10**levels steps."""
    made = b'(' + b'K\x01' * 10 + b'tq\x00'
    for level in range(levels - 1):
        made += b'(' + (b'h' + bytes([level])) * 9 + b't' + b'q' + bytes([level + 1])
    return b'(' + made + b't'


def nested_keys() -> Iterator[tuple[str, bytes]]:
    """Yields a name and a small pickle in which torch would hash or print a nested tuple."""
    nested = nested_tuple()
    yield from {
        'nested key': b'\x80\x02}' + nested + b'K\x01s.',
        'nested keys': b'\x80\x02}(' + nested + b'K\x01u.',
        'nested key of an OrderedDict': b'\x80\x02ccollections\nOrderedDict\n)R' + nested + b'K\x01s.',
        'nested key in pairs': b'\x80\x02ccollections\nOrderedDict\n](](' + nested + b'K\x01ee\x85R.',
        'nested element of a set': b'\x80\x02cbuiltins\nset\n](' + nested + b'e\x85R.',
        'nested layout': b'\x80\x02ctorch.serialization\n_get_layout\n' + nested + b'\x85R.',
        'nested function': b'\x80\x02' + nested + b')R.',
        'nested class': b'\x80\x02' + nested + b')\x81.',
    }.items()


def large_calls() -> Iterator[tuple[str, bytes]]:
    """Yields a name and a small pickle of a call, which torch's safe reader accepts, that makes gigabytes."""
    size = b'J' + struct.pack('<i', 2**31 - 1)
    rebuilt = b'ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\nbytearray\nctorch\nTensor\n'
    array = b'cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n' + size + b'\x85' + text(b'b') + b'tR.'
    for name in (
        *('builtins bytearray', '__builtin__ bytearray', 'torch FloatTensor', 'torch ByteTensor', 'torch Tensor'),
        *('torch.cuda FloatTensor', 'torch.storage UntypedStorage', 'torch.storage TypedStorage', 'numpy ndarray'),
    ):
        made = b'c' + '\n'.join(name.split()).encode() + b'\n' + size + b'\x85'
        yield f'call of {name}', b'\x80\x02' + made + b'R.'
        yield f'new {name}', b'\x80\x02' + made + b'\x81.'
    yield 'call in a rebuilt type', b'\x80\x02' + rebuilt + size + b'\x85}tR.'
    yield 'rebuilt array', b'\x80\x02' + array


def plain(data: bytes) -> bytes:
    """Returns a pickle as a file of its own."""
    return data


def zipped(data: bytes, records: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """Returns a zip file as `torch.save` writes it, with a pickle and the storage `0`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', method) as archive:
        archive.writestr('archive/data.pkl', data)
        archive.writestr('archive/byteorder', b'little')
        for name, content in {'archive/data/0': bytes(4), **(records or {})}.items():
            archive.writestr(name, content)
        archive.writestr('archive/version', b'3\n')
        archive.writestr('archive/.data/serialization_id', b'0')
    return buffer.getvalue()


def legacy(data: bytes) -> bytes:
    """Returns a file in the format that `torch.save` wrote before version 1.6."""
    head = [0x1950A86A20F9469CFC6C, 1001, {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {}}]
    return b''.join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps([], 2)


def tar(data: bytes) -> bytes:
    """Returns a file in the format that `torch.save` wrote before version 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for name, content in {
            'sys_info': pickle.dumps({'little_endian': True}, 2),
            'pickle': data,
            'storages': pickle.dumps(0, 2),
            'tensors': pickle.dumps(0, 2),
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


FORMS: dict[str, Callable[[bytes], bytes]] = {'plain': plain, 'zip': zipped, 'legacy': legacy, 'tar': tar}
