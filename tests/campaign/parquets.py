"""Parquet files from others: names, types and counts that mislead, damaged footers, and values that grow."""

import io
import random
import struct
from collections.abc import Iterator

import pyarrow
from campaign import pickles
from campaign.cases import Case
from campaign.containers import Content, accepted, picture, refused, turns
from pyarrow import parquet

TYPES = (pyarrow.string(), pyarrow.binary())


def written(table: pyarrow.Table, **options: object) -> bytes:
    """Returns a Parquet file."""
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, **options)
    return buffer.getvalue()


def rows(*names: object, data: list | None = None, types: tuple = TYPES, **options: object) -> bytes:
    """Returns a Parquet file with images of these names."""
    data = [picture()] * len(names) if data is None else data
    columns = {'path': pyarrow.array(names, types[0]), 'bytes': pyarrow.array(data, types[1])}
    return written(pyarrow.table(columns), **options)


def useless(count: int, **options: object) -> bytes:
    """Returns a Parquet file whose rows cannot be decoded, so that a command for it fails also if it can be read."""
    return rows(*(f'{number}.png' for number in range(count)), data=[b'none'] * count, **options)


def _names() -> Iterator[tuple[str, Content, str]]:
    out = 'leads out of the output folder'
    yield 'name above', rows('../evil.png'), out
    yield 'name above in the middle', rows('a.png', 'a/../../evil.png'), out
    yield 'absolute name', lambda folder: rows(f'{folder}/evil.png'), out
    yield 'name with a zero byte', rows('a\0evil.png'), 'not the name of a file'
    yield 'empty name', rows(''), 'not the name of a file'
    yield 'long part of a name', rows('x' * 300 + '.png'), 'too long'
    yield 'name of 100 MB', lambda _: rows('x/' * 50_000_000 + '.png', compression='zstd'), 'too long'
    yield 'no name', rows('a.png', None), 'no path'
    yield 'two images of one name', rows('a.png', './a.png'), 'two members'
    yield 'image below an image', rows('a.png', 'a.png/b.png'), 'name of a folder'
    yield 'name that is no UTF-8', _no_utf8(), ''
    yield (
        'pickle as an image',
        rows('a.png', data=[pickles.call('os.system', pickles.text(pickles.COMMAND)) + b'.']),
        '',
    )


def _no_utf8() -> bytes:
    return rows('qqqq.png', use_dictionary=False, compression='none', write_statistics=False).replace(
        b'qqqq.png', b'\xff\xfe\xffq.png'
    )


def _columns() -> Iterator[tuple[str, Content, str]]:
    one = pyarrow.array([picture()], pyarrow.binary())
    for name, array in {
        'binary': one,
        'integer': pyarrow.array([1]),
        'list': pyarrow.array([['a.png']]),
        'struct': pyarrow.array([{'path': 'a.png'}]),
        'null': pyarrow.nulls(1),
        'dictionary': pyarrow.array(['a.png']).dictionary_encode(),
    }.items():
        yield f'path of the type {name}', written(pyarrow.table({'path': array, 'bytes': one})), 'path has the type'
    for name, array in {
        'string': pyarrow.array(['a']),
        'float': pyarrow.array([1.5]),
        'list of bytes': pyarrow.array([[1, 2]], pyarrow.list_(pyarrow.uint8())),
        'fixed size': pyarrow.array([b'abcd'], pyarrow.binary(4)),
        'struct': pyarrow.array([{'bytes': b'a', 'path': 'a'}]),
        'null': pyarrow.nulls(1),
        'timestamp': pyarrow.array([0], pyarrow.timestamp('ns')),
    }.items():
        table = pyarrow.table({'path': ['a.png'], 'bytes': array})
        yield f'bytes of the type {name}', written(table), 'bytes has the type'
    needed = 'one column'
    yield 'columns of other names', written(pyarrow.table({'image': one, 'key': ['a']})), needed
    yield 'no columns', written(pyarrow.table({'a': pyarrow.nulls(0)}).drop(['a'])), needed
    twice = pyarrow.table([pyarrow.array(['a.png']), pyarrow.array(['b.png']), one], names=['path', 'path', 'bytes'])
    yield 'two columns of one name', written(twice), needed
    yield '5,000 columns', lambda _: written(pyarrow.table({f'c{n}': [1] for n in range(5000)})), needed
    deep = pyarrow.array([1])
    for _ in range(60):
        deep = pyarrow.StructArray.from_arrays([deep], ['path'])
    yield 'deep path', written(pyarrow.table({'path': deep, 'bytes': one})), 'path has the type'
    yield 'no rows', rows(), 'No images'
    yield 'no bytes', rows('a.png', data=[None]), 'has no bytes'
    yield 'empty bytes', rows('a.png', data=[b'']), ''


def _footers() -> Iterator[tuple[str, Content, str]]:
    """Yields files whose ends are damaged or mislead. Their rows cannot be decoded."""
    whole = useless(300)
    length, said = struct.unpack('<I', whole[-8:-4])[0], 'cannot be read as a Parquet file'
    for name, value in {
        '0': 0,
        '1': 1,
        'one more': length + 1,
        'one less': length - 1,
        'all': len(whole),
        '2 GiB': 2**31 - 1,
        '4 GiB': 2**32 - 1,
    }.items():
        yield f'footer of the length {name}', whole[:-8] + struct.pack('<I', value) + b'PAR1', ''
    yield 'encrypted footer', whole[:-4] + b'PARE', 'Encrypted'
    yield 'no end', whole[:-8], said
    yield 'first half', whole[: len(whole) // 2], said
    yield 'empty file', b'', said
    yield 'marks only', b'PAR1PAR1', said
    yield 'marks and zeros', b'PAR1' + bytes(1000) + struct.pack('<I', 900) + b'PAR1', said
    yield 'footer of ones', whole[: -8 - length] + b'\xff' * length + whole[-8:], said
    yield 'footer of nested lists', whole[: -8 - length] + b'\x19' * length + whole[-8:], said
    yield 'footer of nested structs', b'PAR1' + b'\x1c' * 10**6 + struct.pack('<I', 10**6) + b'PAR1', said
    yield 'zip file', b'PK\x03\x04' + bytes(200), said
    for seed in range(30):
        yield f'flipped bytes {seed} of the footer', _flipped(whole, len(whole) - 8 - length, len(whole) - 8, seed), ''
        yield f'flipped bytes {seed} of the pages', _flipped(whole, 4, len(whole) - 8 - length, seed), ''


def _flipped(data: bytes, start: int, end: int, seed: int) -> bytes:
    chosen, result = random.Random(seed), bytearray(data)
    for _ in range(1 + seed % 4):
        result[chosen.randrange(start, end)] = chosen.randrange(256)
    return bytes(result)


def _varint(value: int) -> bytes:
    """Returns a signed integer as footers have it."""
    value, found = (value << 1) ^ (value >> 63), []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def _patched(data: bytes, old: int, new: int, pages: bool = False) -> bytes:
    """Replaces an integer in the footer of a file, or also in its pages, by another one of as many bytes."""
    before, after = _varint(old), _varint(new)
    length = struct.unpack('<I', data[-8:-4])[0]
    start = 0 if pages else len(data) - 8 - length
    if len(before) != len(after) or before not in data[start:]:
        raise ValueError(f'{old} cannot be replaced by {new}')
    return data[:start] + data[start:].replace(before, after)


def _counts() -> Iterator[tuple[str, Content, str]]:
    """Yields files that state other numbers of rows or bytes than they have. Their rows cannot be decoded."""
    for count, new in ((300, 8191), (300, 100), (300, -300), (9000, 1_048_575), (9000, -9000)):
        whole, said = useless(count, use_dictionary=False, compression='none'), '' if new == 100 else 'Parquet file'
        yield f'{new} rows instead of {count}', _patched(whole, count, new), said
        yield f'{new} rows instead of {count} in pages too', _patched(whole, count, new, pages=True), said
    size = parquet.ParquetFile(io.BytesIO(useless(300))).metadata.row_group(0).total_byte_size
    yield 'row group of a negative size', _patched(useless(300), size, -size), ''
    yield 'one value in 40 rows', lambda _: _repeated(40, 2**24), ''
    yield 'value of 256 MiB', lambda _: rows('a.png', data=[bytes(2**28)], compression='zstd'), 'a.png'
    yield '1,000 row groups', lambda _: useless(1000, row_group_size=1), ''


def _repeated(count: int, size: int) -> bytes:
    """Returns a small file whose rows all have the same large value."""
    keys = pyarrow.array([0] * count, pyarrow.int8())
    table = pyarrow.table(
        {
            'path': [f'{number}.png' for number in range(count)],
            'bytes': pyarrow.DictionaryArray.from_arrays(keys, [bytes(size)]),
        }
    )
    return written(table, compression='zstd', store_schema=False)


LARGE = (pyarrow.large_string(), pyarrow.large_binary())
NAMES = ('a.png', 'ä/b.png', './c.png')
CONTROLS: dict[str, Content] = {
    **{f'valid with {kind}': rows(*NAMES, compression=kind) for kind in ('none', 'snappy', 'gzip', 'zstd', 'brotli')},
    **{f'valid of version {version}': rows(*NAMES, version=version) for version in ('1.0', '2.4', '2.6')},
    'valid of large types': rows(*NAMES, types=LARGE),
    'valid without a dictionary': rows(*NAMES, use_dictionary=False, write_statistics=False),
    'valid in row groups': rows(*NAMES, row_group_size=1),
    'valid with new pages': rows(*NAMES, data_page_version='2.0', compression='zstd'),
    'valid with checksums': rows(*NAMES, write_page_checksum=True),
    'valid with other columns': written(
        pyarrow.table({'key': [1, 2, 3], 'path': NAMES, 'bytes': [picture()] * 3, 'deep': [[{'a': 1}]] * 3})
    ),
}
HARMLESS: dict[str, tuple[Content, int]] = {
    'names of Windows': (rows('..\\evil.png', 'C:\\evil.png'), 1),
    'names of options': (rows('-rf.png', '--out.png', '$(touch evil).png'), 3),
    'metadata that call': (
        written(
            pyarrow.table({'path': ['a.png'], 'bytes': [picture()]}).replace_schema_metadata(
                {
                    'pandas': '{"__reduce__": ["os.system", "touch evil"]}',
                    'pickle': pickles.call('os.system', b'N') + b'.',
                }
            )
        ),
        1,
    ),
}


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    turn = turns()
    for made in (_names, _columns, _footers, _counts):
        for name, content, said in made():
            doors = next(turn)
            for door in doors[:1] if name.startswith('flipped') else doors:
                yield refused('parquets', name, content, door, (said,) if said else (), made in (_names, _counts))
    for name, content in CONTROLS.items():
        for door in next(turn):
            yield accepted('parquets', name, content, door, len(NAMES))
    for name, (content, count) in HARMLESS.items():
        for door in next(turn):
            yield accepted('parquets', name, content, door, count, malicious=True)
