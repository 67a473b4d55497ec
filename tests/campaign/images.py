"""Image files of every type and mode, valid and damaged, with odd names, links and targets, at every door."""

import functools
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from campaign.cases import Case
from campaign.doors import DATA, RESNET, RESTORE, RUN
from campaign.faults import DAMAGES, damaged_middle
from PIL import Image

Make = Callable[[Image.Image], bytes]
ADAPTER = f'--adapter $FX/adapter.safetensors {RESTORE}'
DOORS = {
    'restore': f'restore in out {ADAPTER}',
    'make-lq': 'make-lq in out --workers 1',
    'segment': 'segment in out --checkpoint $FX/resnet.pth',
    'attention': 'attention @ --adapter $FX/adapter.safetensors --base $FX/base --out out',
    'train': f'train {RESNET} --work-dir w --cfg-options {RUN} train_dataloader.batch_size=8',
    'test': f'test {RESNET} $FX/resnet.pth --work-dir w --cfg-options {DATA}',
    'check-data': f'check-data {RESNET} --workers 1 --cfg-options {DATA}',
}
"""Doors of images. The first four read the folder `in`, where the image is named `m`; the others read a data set."""
FILES = ('restore', 'make-lq', 'segment', 'attention')
SETS = ('train', 'test', 'check-data')


def _saved(kind: str, mode: str = 'RGB', **options: object) -> Make:
    def make(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        image.convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


def _array(kind: str, convert: Callable[[np.ndarray], np.ndarray]) -> Make:
    """Returns a function that encodes a converted (H, W, 3) uint8 array with OpenCV."""
    return lambda image: cv2.imencode(kind, convert(np.asarray(image)))[1].tobytes()


def _grey(array: np.ndarray) -> np.ndarray:
    return array.mean(2)


def _animated(kind: str, **options: object) -> Make:
    def make(image: Image.Image) -> bytes:
        buffer = io.BytesIO()
        others = [image.rotate(angle) for angle in (90, 180)]
        image.save(buffer, kind, save_all=True, append_images=others, **options)
        return buffer.getvalue()

    return make


def _oriented(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved('JPEG', exif=exif)(image)


VALID: dict[str, tuple[str, Make]] = {
    'PNG': ('png', _saved('PNG')),
    'PNG grey': ('png', _saved('PNG', 'L')),
    'PNG 1 bit': ('png', _saved('PNG', '1')),
    'PNG palette': ('png', _saved('PNG', 'P')),
    'PNG alpha': ('png', _saved('PNG', 'RGBA')),
    'PNG grey and alpha': ('png', _saved('PNG', 'LA')),
    'PNG 16 bit grey': ('png', _array('.png', lambda array: (_grey(array) * 257).astype(np.uint16))),
    'PNG 16 bit': ('png', _array('.png', lambda array: array.astype(np.uint16) * 257)),
    'PNG 16 bit alpha': (
        'png',
        _array('.png', lambda array: np.dstack([array, array[..., :1]]).astype(np.uint16) * 257),
    ),
    'PNG animated': ('png', _animated('PNG')),
    'JPEG': ('jpg', _saved('JPEG', quality=90)),
    'JPEG grey': ('jpg', _saved('JPEG', 'L')),
    'JPEG CMYK': ('jpg', _saved('JPEG', 'CMYK')),
    'JPEG progressive': ('jpg', _saved('JPEG', progressive=True)),
    'JPEG optimized': ('jpg', _saved('JPEG', optimize=True)),
    'JPEG EXIF': ('jpg', _oriented),
    'JPEG and further bytes': ('jpg', lambda image: _saved('JPEG')(image) + bytes(500)),
    'JPEG named PNG': ('png', _saved('JPEG')),
    'WebP': ('webp', _saved('WEBP')),
    'WebP lossless': ('webp', _saved('WEBP', lossless=True)),
    'WebP alpha': ('webp', _saved('WEBP', 'RGBA')),
    'WebP animated': ('webp', _animated('WEBP')),
    'BMP': ('bmp', _saved('BMP')),
    'BMP grey': ('bmp', _saved('BMP', 'L')),
    'BMP 1 bit': ('bmp', _saved('BMP', '1')),
    'GIF': ('gif', _saved('GIF', 'P')),
    'GIF animated': ('gif', _animated('GIF')),
    'TIFF': ('tif', _saved('TIFF')),
    'TIFF LZW': ('tiff', _saved('TIFF', compression='tiff_lzw')),
    'TIFF 1 bit': ('tif', _saved('TIFF', '1')),
    'TIFF 16 bit': ('tif', _array('.tif', lambda array: array.astype(np.uint16) * 257)),
    'TIFF float': ('tif', _array('.tif', lambda array: array.astype(np.float32) / 255)),
    'TIFF float grey': ('tif', _array('.tif', lambda array: (_grey(array) / 255).astype(np.float32))),
    'TIFF pages': ('tif', _animated('TIFF')),
    'PPM': ('ppm', _saved('PPM')),
    'PGM': ('pgm', _saved('PPM', 'L')),
    'PNG of one row': ('png', lambda image: _saved('PNG')(image.resize((96, 1)))),
}
DAMAGED: dict[str, tuple[str, Make]] = {
    **{
        f'{kind} {name}': (suffix, lambda image, make=make, damage=damage: damage(make(image)))
        for kind, suffix, make in (
            ('PNG', 'png', _saved('PNG')),
            ('JPEG', 'jpg', _saved('JPEG', quality=90)),
            ('WebP', 'webp', _saved('WEBP', quality=90)),
            ('TIFF', 'tif', _saved('TIFF', compression='tiff_lzw')),
            ('GIF', 'gif', _saved('GIF', 'P')),
            ('BMP', 'bmp', _saved('BMP')),
        )
        for name, damage in DAMAGES.items()
        if name != 'without its last byte' or kind == 'BMP'
    },
    'PNG middle': ('png', lambda image: damaged_middle(_saved('PNG')(image))),
    'PNG zeros in the middle': ('png', lambda image: _zeroed(_saved('PNG')(image))),
    'PNG end in the middle': ('png', lambda image: _end(_saved('PNG')(image), b'IEND')),
    'PNG 16 bit middle': ('png', lambda image: damaged_middle(VALID['PNG 16 bit'][1](image))),
    'JPEG middle': ('jpg', lambda image: damaged_middle(_saved('JPEG', quality=95)(image))),
    'JPEG zeros in the middle': ('jpg', lambda image: _zeroed(_saved('JPEG', quality=95)(image))),
    'JPEG end in the middle': ('jpg', lambda image: _end(_saved('JPEG', quality=95)(image), b'\xff\xd9')),
    'JPEG without its middle': ('jpg', lambda image: _without(_saved('JPEG', quality=95)(image))),
    'WebP middle': ('webp', lambda image: damaged_middle(_saved('WEBP', quality=95)(image))),
    'WebP zeros in the middle': ('webp', lambda image: _zeroed(_saved('WEBP', quality=95)(image))),
    'WebP lossless middle': ('webp', lambda image: damaged_middle(_saved('WEBP', lossless=True)(image))),
    'TIFF of NaN': ('tif', _array('.tif', lambda array: np.full(array.shape, np.nan, np.float32))),
    'TIFF of 0 to 255': ('tif', _array('.tif', lambda array: array.astype(np.float32))),
    'PNG of 40000x40000': ('png', lambda image: _claimed(_saved('PNG')(image), 40_000)),
    # decoders accept both, so only our own check sees them
    'PNG without its last block': ('png', lambda image: _saved('PNG')(image)[:-12]),
    'PNG with a wrong checksum': ('png', lambda image: _wrong_checksum(_saved('PNG')(image))),
}


LEFT_OUT = ('gif', 'ppm', 'pgm')
"""Types that make-lq leaves out of a folder and names."""
UNSEEN = ('WebP middle', 'WebP zeros in the middle')
"""Damages that leave a file that every decoder accepts: lossy WebP has no checksums, and all bits mean something."""


def _zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


def _without(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + data[middle + 300 :]


def _end(data: bytes, end: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + end + data[middle + len(end) :]


def _claimed(data: bytes, side: int) -> bytes:
    return data[:16] + side.to_bytes(4, 'big') * 2 + data[24:]


def _wrong_checksum(data: bytes) -> bytes:
    place = data.index(b'IEND') - 8  # that of the last block of pixels, before the length of IEND
    return data[:place] + bytes(255 - value for value in data[place : place + 4]) + data[place + 4 :]


def _source(kit: Path) -> Image.Image:
    return Image.open(kit / 'good.jpg').convert('RGB')


def _folder(name: bytes, make: Make | None, folder: Path, kit: Path) -> None:
    """Makes a folder `in` with two good images and the image of the case."""
    (folder / 'in').mkdir()
    shutil.copy(kit / 'good.png', folder / 'in' / 'a.png')
    shutil.copy(kit / 'good.png', folder / 'in' / 'z.png')
    if make is not None:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), b'in', name))).write_bytes(make(_source(kit)))


def _data_set(suffix: str, make: Make, folder: Path, kit: Path) -> None:
    """Copies the data set of the kit, in which one image of each split is that of the case."""
    shutil.copytree(kit / 'data', folder / 'data')
    for path in [
        sorted((folder / 'data').glob(f'{name}/{split}/[!.]*'))[0]
        for name in ('img_dir', 'img_lq')
        for split in ('train', 'val')
        if (folder / 'data' / name / split).is_dir()
    ]:
        image = Image.open(path).convert('RGB')
        path.write_bytes(make(image))


def _outputs(name: str, wanted: bool, folder: Path) -> str | None:
    """Checks that there is an output of the two good images and, if `wanted`, of the image of the case."""
    stems = {path.stem.removesuffix('_attention') for path in (folder / 'out').rglob('*') if path.is_file()}
    missing = [stem for stem in ('a', 'z', *[name] * wanted) if stem not in stems]
    if missing:
        return f'there is no output of {missing[0]}'
    return f'there is an output of {name}' if not wanted and name in stems else None


def _command(door: str, name: str) -> str:
    images = f'in/a.png {name} in/z.png'
    return DOORS[door].replace('@', images) if door in FILES else DOORS[door].replace('$FX/data', 'data')


def _kinds() -> Iterator[Case]:
    for kinds, ok in ((VALID, True), (DAMAGED, False)):
        turn, sets = itertools.cycle(('segment', 'restore', 'attention')), itertools.cycle(SETS)
        for name, (suffix, make) in kinds.items():
            prepare = functools.partial(_folder, f'm.{suffix}'.encode(), make)
            middle = ('restore', 'segment', 'attention') if 'middle' in name else ()
            for door in dict.fromkeys(('make-lq', next(turn), *middle)):
                left_out = door == 'make-lq' and suffix in LEFT_OUT
                good = ok or left_out or name in UNSEEN
                check = functools.partial(
                    _done_or_named if left_out else _outputs, *['m.'] if left_out else ['m', good]
                )
                named = () if good else (r'm\.',)
                yield Case(f'images/{name}/{door}', _command(door, f'in/m.{suffix}'), good, named, prepare, check)
            if suffix in ('png', 'jpg') and 'EXIF' not in name and 'one row' not in name:
                trained = ('train',) if ok else SETS if 'middle' in name else ()
                for door in dict.fromkeys((next(sets), *trained)):
                    if (name, door) == ('JPEG zeros in the middle', 'test'):
                        continue  # in this image, the zeros are valid data
                    prepare = functools.partial(_data_set, suffix, make)
                    yield Case(f'images/{name}/{door}', _command(door, ''), ok, prepare=prepare)


def _resized(size: tuple[int, int], orientation: int, make: Make, folder: Path, kit: Path) -> None:
    """Copies the data set of the kit, in which one image of each split and its labels have another size."""
    shutil.copytree(kit / 'data', folder / 'data')
    for place in sorted((folder / 'data').glob('*/*/')):
        path = sorted(place.glob('[!.]*'))[0]
        image = Image.open(path).resize(size, Image.Resampling.NEAREST)
        if place.parent.name == 'ann_dir':
            # labels are drawn on the picture as it is shown
            (image.transpose(Image.Transpose.ROTATE_270) if orientation == 6 else image).save(path)
        else:
            path.write_bytes(make(image.convert('RGB')))


SIZES = {'the same size': (96, 96), 'a smaller size': (64, 48), 'a larger size': (200, 130)}


def _data_sets() -> Iterator[Case]:
    """Yields data sets whose images differ in size and in kind."""
    kinds: dict[str, Make] = {
        name: make
        for name, (suffix, make) in VALID.items()
        if suffix in ('png', 'jpg') and name in ('PNG alpha', 'PNG 1 bit', 'PNG palette', 'JPEG CMYK', 'JPEG EXIF')
    }
    kinds['WebP animated'] = VALID['WebP animated'][1]
    for name, make in kinds.items():
        for kind, size in SIZES.items():
            prepare = functools.partial(_resized, size, 6 if 'EXIF' in name else 1, make)
            for door in SETS if name == 'JPEG EXIF' else ('train',):
                # labels of a turned square do not show whether they were drawn before or after the turn
                unclear = name == 'JPEG EXIF' and kind == 'the same size'
                named = ('stored', 'displayed') if unclear else ()
                yield Case(f'images/{name} of {kind}/{door}', _command(door, ''), not unclear, named, prepare)
    for name, size in {'one row': (96, 1), 'one column': (1, 96), 'one pixel': (1, 1)}.items():
        for door in SETS:
            prepare = functools.partial(_resized, size, 1, _saved('PNG'))
            yield Case(f'images/PNG of {name} with labels/{door}', _command(door, ''), ok=True, prepare=prepare)


NAMES: dict[str, bytes] = {
    '255 bytes': b'n' * 251 + b'.png',
    '255 bytes of umlauts': ('ä' * 125).encode() + b'x.png',
    '255 bytes of emojis': ('\N{GRINNING FACE}' * 62).encode() + b'xyz.png',
    'not UTF-8': b'm\xff\xfe.png',
    'spaces': b' m  m .png',
    'quotes': b'm\'"`$(x).png',
    'new line': b'm\nm.png',
    'brackets': b'[m]*?.png',
    'leading dash': b'-m.png',
    'two suffixes': b'm.tar.png',
    'upper case': b'M.PNG',
    'percent': b'm%d%s.png',
    'markup': b'[red]m.png',
}


def _names() -> Iterator[Case]:
    for name, data in NAMES.items():
        prepare = functools.partial(_folder, data, _saved('PNG'))
        for door in FILES:
            file = 'in/' + os.fsdecode(data)
            line = _command(door, '@@').split()
            command = [file if part == '@@' else part for part in line]
            check = (
                functools.partial(_outputs, Path(file).stem, True)
                if door != 'attention' and door != 'segment'
                else None
            )
            yield Case(f'images/name {name}/{door}', command, ok=True, prepare=prepare, check=check)


def _entry(make: Callable[[Path, Path], None], folder: Path, kit: Path) -> None:
    _folder(b'', None, folder, kit)
    make(folder / 'in', kit)


def _linked_folder(place: Path, kit: Path) -> None:
    (place.parent / 'sub').mkdir()
    shutil.copy(kit / 'good.png', place.parent / 'sub' / 'q.png')
    (place / 'sub').symlink_to('../sub')


ENTRIES: dict[str, tuple[Callable[[Path, Path], None], str]] = {
    'link to nothing': (lambda place, kit: (place / 'm.png').symlink_to('nothing.png'), 'm'),
    'link to itself': (lambda place, kit: (place / 'm.png').symlink_to('m.png'), 'm'),
    'FIFO': (lambda place, kit: os.mkfifo(place / 'm.png'), 'm'),
    'folder named as an image': (lambda place, kit: (place / 'm.png').mkdir(), ''),
    'link to a folder': (_linked_folder, 'q'),
    'link to its own folder': (lambda place, kit: (place / 'again').symlink_to('.'), 'again'),
    'link to an image': (lambda place, kit: (place / 'm.png').symlink_to(kit / 'good.png'), 'm'),
    'empty folder': (lambda place, kit: (place / 'empty').mkdir(), ''),
    'hidden image': (lambda place, kit: shutil.copy(kit / 'good.png', place / '.m.png'), 'm'),
    'text': (lambda place, kit: (place / 'm.txt').write_text('hello'), 'm'),
}
"""Entries of a folder that a command processes or names: how it is made, and the name."""


def _entries() -> Iterator[Case]:
    for name, (make, said) in ENTRIES.items():
        for door in ('make-lq', 'restore', 'segment'):
            prepare, check = functools.partial(_entry, make), functools.partial(_done_or_named, said)
            yield Case(f'images/entry {name}/{door}', DOORS[door], ok=True, prepare=prepare, check=check)
    for name in ('link to nothing', 'FIFO', 'folder named as an image'):
        for door, command in {
            'restore': f'restore in/m.png o.png {ADAPTER}',
            'attention': _command('attention', 'in/m.png'),
            'segment': 'segment in/m.png out --checkpoint $FX/resnet.pth',
        }.items():
            if name == 'folder named as an image' and door != 'attention':
                continue
            yield Case(
                f'images/given {name}/{door}',
                command,
                named=(r'm\.png',),
                prepare=functools.partial(_entry, ENTRIES[name][0]),
            )


def _done_or_named(name: str, folder: Path) -> str | None:
    done = any(path.stem == name for path in (folder / 'out').rglob('*'))
    said = name in folder.with_suffix('.log').read_text(errors='replace')
    wrong = _outputs('', False, folder) if not name else None
    return wrong or (None if not name or done or said else f'{name} is skipped without a word')


def _targets() -> Iterator[Case]:
    file = functools.partial(_target, lambda folder: (folder / 'out').write_text('mine'))
    same = lambda folder: None if (folder / 'out').read_text() == 'mine' else 'the file was replaced'  # noqa: E731
    for door in FILES:
        yield Case(f'images/target is a file/{door}', _command(door, ''), named=('out',), prepare=file, check=same)
    nested = functools.partial(_target, lambda folder: (folder / 'f').write_text('mine'))
    for door in FILES:
        command = _command(door, '').replace(' out', ' f/out')
        yield Case(f'images/target below a file/{door}', command, named=('f',), prepare=nested)
    sheet = functools.partial(_target, lambda folder: (folder / 's.png').mkdir())
    yield Case(
        'images/sheet is a folder/restore', f'{DOORS["restore"]} --sheet s.png', named=(r's\.png',), prepare=sheet
    )
    yield Case('images/sheet below a file/restore', f'{DOORS["restore"]} --sheet f/s.png', named=('f',), prepare=nested)
    yield Case(
        'images/sheet is a source/restore',
        f'{DOORS["restore"]} --sheet in/a.png',
        named=('a.png',),
        prepare=functools.partial(_target, lambda folder: None),
    )
    own = functools.partial(_target, lambda folder: None)
    for door in ('restore', 'make-lq', 'segment'):
        yield Case(
            f'images/target is the source/{door}', DOORS[door].replace('in out', 'in in'), named=('in',), prepare=own
        )
        yield Case(
            f'images/target in the source/{door}',
            DOORS[door].replace('in out', 'in in/out'),
            named=('in',),
            prepare=own,
        )
        yield Case(
            f'images/no images/{door}', DOORS[door], named=('in',), prepare=lambda folder, kit: (folder / 'in').mkdir()
        )
        yield Case(f'images/no folder/{door}', DOORS[door], named=('in',))
    full = functools.partial(_target, lambda folder: (folder / 'out').symlink_to('/proc'))
    for door in ('restore', 'make-lq', 'segment', 'attention'):
        yield Case(f'images/target cannot be written/{door}', _command(door, ''), named=('out',), prepare=full)


def _limits() -> Iterator[Case]:
    """Yields a valid image of more pixels than the limit, between two images that are within it."""
    prepare, check = functools.partial(_folder, b'm.png', _saved('PNG')), functools.partial(_outputs, 'm', False)
    for door in FILES:
        command = f'{_command(door, "in/m.png")} --max-pixels 5000'
        named = (r'm\.png', 'max-pixels')
        yield Case(f'images/PNG beyond the limit/{door}', command, named=named, prepare=prepare, check=check)


def _first_is_bad() -> Iterator[Case]:
    """Yields a command with a bad image before a good one."""
    for name in ('PNG empty', 'PNG first half', 'JPEG web page'):
        suffix, make = DAMAGED[name]
        for door in ('segment', 'restore', 'attention'):
            command = DOORS[door].replace('@', f'in/0.{suffix} in/a.png in/z.png')
            prepare = functools.partial(_folder, f'0.{suffix}'.encode(), make)
            check = functools.partial(_outputs, '0', False)
            yield Case(f'images/first is {name}/{door}', command, named=(r'0\.',), prepare=prepare, check=check)


def _target(make: Callable[[Path], object], folder: Path, kit: Path) -> None:
    _folder(b'', None, folder, kit)
    make(folder)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    for made in (_kinds, _data_sets, _names, _entries, _targets, _limits, _first_is_bad):
        yield from made()
