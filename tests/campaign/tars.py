"""Tar files from others: names that lead elsewhere, links, devices, headers that mislead, and damage."""

import bz2
import functools
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from campaign import pickles
from campaign.cases import Case
from campaign.containers import Content, accepted, picture, refused, turns

BLOCK = tarfile.BLOCKSIZE
END = bytes(2 * BLOCK)
Entry = tuple[tarfile.TarInfo, bytes]
Patch = Mapping[int, bytes]
NOTHING: Patch = {}


def entry(name: str, data: bytes | None = None, **fields: object) -> Entry:
    """Returns a member, an image unless its data are given. `fields` are attributes of its header."""
    info = tarfile.TarInfo(name)
    data = picture() if data is None else data
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*entries: Entry, form: int = tarfile.PAX_FORMAT, **options: object) -> bytes:
    """Returns a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w', format=form, **options) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


def raw(
    name: str, data: bytes = b'', kind: bytes = tarfile.REGTYPE, size: int | None = None, patch: Patch = NOTHING
) -> bytes:
    """Returns a header with any size and any bytes at the places of `patch`, and the data."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data) if size is None else size
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for place, value in patch.items():
        header[place : place + len(value)] = value
    header[148:156] = b' ' * 8
    header[148:156] = b'%06o\0 ' % sum(header)
    return bytes(header) + data + bytes(-len(data) % BLOCK)


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE, size: int | None = None) -> bytes:
    """Returns a PAX or GNU header with a body."""
    return raw('header', body, kind, size)


def record(key: str, value: str) -> bytes:
    """Returns a record of a PAX header."""
    rest = f' {key}={value}\n'.encode()
    length = next(n for n in range(len(rest), len(rest) + 9) if n == len(rest) + len(str(n)))
    return str(length).encode() + rest


def _names() -> Iterator[tuple[str, Content, str]]:
    out = 'leads out of the output folder'
    yield 'name above', tar(entry('../evil.png')), out
    yield 'name far above', tar(entry('../' * 40 + 'tmp/evil.png')), out
    yield 'name above in the middle', tar(entry('a/../../evil.png')), out
    yield 'absolute name', lambda folder: tar(entry(f'{folder}/evil.png')), out
    yield 'absolute name with two slashes', lambda folder: tar(entry(f'/{folder}/evil.png')), out
    yield 'name above of a PAX header', tar(entry('a.png', pax_headers={'path': '../evil.png'})), out
    yield 'name above of a global header', tar(entry('a.png'), pax_headers={'path': '../evil.png'}), out
    yield 'long name above', tar(entry('../' + 'evil' * 50 + '.png'), form=tarfile.GNU_FORMAT), out
    yield 'prefix above', raw('evil.png', picture(), patch={345: b'..', 257: b'ustar\x0000'}) + END, out
    yield 'name after a good image above', tar(entry('a.png'), entry('../evil.png')), out
    yield 'name with a zero byte', tar(entry('a', pax_headers={'path': 'a\0evil.png'})), 'not the name of a file'
    yield 'name of dots', tar(entry('./.', pax_headers={'path': './.'})), 'not the name of a file'
    yield 'long part of a name', tar(entry('x' * 300 + '.png')), 'too long'
    yield 'name of 6,000 bytes', tar(entry('/'.join(['x' * 200] * 30) + '.png')), 'too long'
    yield 'two images of one name', tar(entry('a.png'), entry('./a.png')), 'two members'
    yield 'image below an image', tar(entry('a.png'), entry('a.png/b.png')), 'name of a folder'


def _kinds() -> Iterator[tuple[str, Content, str]]:
    for name, kind in {
        'link': tarfile.SYMTYPE,
        'hard link': tarfile.LNKTYPE,
        'character device': tarfile.CHRTYPE,
        'block device': tarfile.BLKTYPE,
        'pipe': tarfile.FIFOTYPE,
        'folder': tarfile.DIRTYPE,
        'unknown type': b'Z',
    }.items():
        fields = {'type': kind, 'linkname': '/etc/passwd', 'devmajor': 1, 'devminor': 5}
        if kind != b'Z':
            yield f'{name} as an image', tar(entry('a.png', b'', **fields)), 'No images'
    yield 'unknown type as an image', raw('a.png', b'\x89PNG', b'Z') + END, ''
    yield 'GNU sparse file', raw('a.png', picture(), tarfile.GNUTYPE_SPARSE, patch={483: b'77777777777\0'}) + END, ''
    blocks = bytes([0] * 504 + [1] + [0] * 7) * 5000
    yield 'GNU sparse file with 5,000 maps', raw('a.png', blocks, b'S', 0, {482: b'\1'}) + END, ''
    sparse = {'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': '../evil.png'}
    yield 'PAX sparse file', tar(entry('a.png', b'1\n0\n9\n' + bytes(506), pax_headers=sparse)), ''
    sparse['GNU.sparse.realsize'] = str(2**50)
    yield 'PAX sparse file of 2**50 bytes', tar(entry('a.png', b'9' * 30 + b'\n' * 482, pax_headers=sparse)), ''
    older = {'GNU.sparse.size': str(2**50), 'GNU.sparse.map': '0,1,' * 3000 + '0,1'}
    yield 'PAX sparse file with a map', tar(entry('a.png', pax_headers=older)), ''
    yield 'pickle as an image', tar(entry('a.png', pickles.call('os.system', pickles.text(pickles.COMMAND)) + b'.')), ''
    yield 'picture of 2**32 pixels', tar(entry('a.png', _huge())), 'a.png'
    yield 'tar in a tar', tar(entry('inner.tar', tar(entry('a.png')))), 'No images'
    yield 'checkpoint in a tar', tar(entry('archive/data.pkl', b'\x80\x02}.')), 'No images'


def _huge() -> bytes:
    """Returns a PNG whose header states 65536x65536 pixels."""
    data = bytearray(picture())
    data[16:24] = struct.pack('>II', 2**16, 2**16)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    return bytes(data)


def _headers() -> Iterator[tuple[str, Content, str]]:
    good = raw('a.png', picture())
    for name, size in {
        '2**62 bytes': 2**62,
        'a negative number of bytes': -512,
        'more bytes than there are': 10**6,
    }.items():
        yield f'member of {name}', raw('a.png', bytes(BLOCK), size=size) + END, ''
    for name, text in {'letters': b'zzzzzzzzzzz\0', 'nothing': bytes(12), 'ones': b'\xff' * 12}.items():
        yield f'size of {name}', raw('a.png', bytes(BLOCK), patch={124: text}) + END, ''
    for size in ('9223372036854775808', '-1', 'many', '9' * 200):
        yield f'PAX size {size[:20]}', extended(record('size', size)) + good + END, ''
    for name, kind in {'PAX': b'x', 'global PAX': b'g', 'Solaris': b'X', 'long name': b'L', 'long link': b'K'}.items():
        for size in (2**40, 2**62, -1):
            yield f'{name} header of {size} bytes', extended(b'', kind, size) + good + END, 'a size of'
        yield f'{name} header of 2 MiB', extended(b'9' * 2**21, kind) + good + END, 'a size of'
        yield f'{name} headers in a chain', extended(b'11 path=abc\n'[:11], kind) * 3000 + good + END, ''
    yield 'digits', extended(b'9' * 2**14) + good + END, '256 digits in a row'
    yield 'short runs of digits', extended((b'9' * 255 + b' ') * 60) + good + END, 'no valid record'
    for name, body in {
        'length 0': b'0 path=a.png\n',
        'length beyond the end': b'99 path=a.png\n',
        'negative length': b'-9 path=a\n',
        'no key': b'3 \n',
        'no end': record('path', 'a.png')[:-1],
        'length of 20 digits': b'1' * 20 + b' path=a.png\n',
        'hdrcharset': record('hdrcharset', 'BINARY')[:-3],
    }.items():
        yield f'PAX record with {name}', extended(body) + good + END, 'no valid record'
    yield 'many headers of digits', extended((b'8 a=' + b'9' * 3 + b'\n') * 2000) * 300 + tar(entry('../evil.png')), ''


def _damage() -> Iterator[tuple[str, Content, str]]:
    whole = tar(entry('a.png'), entry('b.png', picture(1)))
    yield 'empty file', b'', ''
    yield 'zeros', bytes(20 * BLOCK), 'No images'
    yield 'text', b'<html>404</html>' * 1000, ''
    yield 'cut in a member', whole[: BLOCK + 700], ''
    yield 'cut after a member', tar(entry('a.png'))[: 2 * BLOCK + len(picture()) // BLOCK * BLOCK], ''
    yield 'cut in a header', whole[:300], ''
    second = BLOCK + -(-len(picture()) // BLOCK) * BLOCK
    yield 'damaged second header', whole[:second] + b'\xff' * 8 + whole[second + 8 :], ''
    yield 'two files in one', whole + tar(entry('c.png')), 'continues after its end'
    compressed = {'gzip': gzip.compress, 'bzip2': bz2.compress, 'xz': lzma.compress}
    for name, compress in compressed.items():
        yield f'compressed by {name}', functools.partial(lambda make, _: make(whole), compress), name
        yield f'{name} bomb', functools.partial(lambda make, _: make(bytes(2**27)), compress), name
    yield 'zip file', lambda _: _zip({'a.png': picture()}), ''
    yield 'zip file with a name above', lambda _: _zip({'../evil.png': picture(), '..\\evil.png': picture()}), ''
    yield 'zip file before a tar file', lambda _: _zip({'a.png': picture()}) + whole, ''


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return entry(name, b'', type=kind, linkname=target)


CONTROLS: dict[str, tuple[Content, int]] = {
    **{
        f'valid {name}': (tar(entry('a.png'), entry(f'ä/{"long " * 12}/b.png'), form=form), 2)
        for name, form in {'PAX': tarfile.PAX_FORMAT, 'GNU': tarfile.GNU_FORMAT, 'ustar': tarfile.USTAR_FORMAT}.items()
    },
    'valid with folders': (tar(_link('./d', '', tarfile.DIRTYPE), entry('./d/a.png')), 1),
    'valid with other files': (tar(entry('a.png'), entry('a.json', b'{}'), entry('.hidden.png')), 1),
    'valid of contiguous files': (tar(entry('a.png', type=tarfile.CONTTYPE)), 1),
    'valid with a very long name': (tar(entry('/'.join(['x' * 90] * 9) + '.png')), 1),
    'valid JPEG': (tar(entry('a.jpg', picture(kind='JPEG'))), 1),
    'valid with comments': (extended(record('comment', '9' * 200) * 70) * 50 + tar(entry('a.png')), 1),
    'valid of 300 files': (tar(entry('a.png'), *(entry(f'{n}.txt', b'') for n in range(300))), 1),
}
HARMLESS: dict[str, tuple[Callable[[Path], bytes], int]] = {
    'folder as a link': (lambda folder: tar(_link('d', str(folder.parent)), entry('d/evil.png')), 1),
    'output as a link': (lambda folder: tar(_link('a.png', f'{folder}/evil.png'), entry('b.png')), 1),
    'hard link elsewhere': (lambda folder: tar(_link('a.png', '/etc/passwd', tarfile.LNKTYPE), entry('b.png')), 1),
    'devices': (lambda folder: tar(_link('a.png', '', tarfile.CHRTYPE), entry('b.png')), 1),
    'names of Windows': (lambda folder: tar(entry('..\\evil.png'), entry('C:\\evil.png')), 1),
    'names of options': (lambda folder: tar(entry('-rf.png'), entry('--out.png'), entry('$(touch evil).png')), 3),
    'name of the staging folder': (lambda folder: tar(entry('.rass_mm.staged/a.png'), entry('b.png')), 2),
    'names of control characters': (lambda folder: tar(entry('\x1b[2J.png'), entry('a\nb.png')), 2),
    'owner and rights': (lambda folder: tar(entry('a.png', mode=0o7777, uid=2**20, uname='root')), 1),
}
"""Containers with entries that are left out, or with strange names that are valid."""


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    turn = turns()
    for made in (_names, _kinds, _headers, _damage):
        for name, content, said in made():
            for door in next(turn):
                yield refused('tars', name, content, door, (said,) if said else (), made is not _damage)
    for name, (content, count) in CONTROLS.items():
        for door in next(turn):
            yield accepted('tars', name, content, door, count)
    for name, (content, count) in HARMLESS.items():
        for door in next(turn):
            yield accepted('tars', name, content, door, count, malicious=True)
