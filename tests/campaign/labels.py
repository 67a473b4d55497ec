"""Label maps and lists of images that cannot be used."""

import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from campaign.cases import Case
from campaign.faults import DAMAGES
from campaign.kit import CLASSES, SMALL, data_options
from PIL import Image

RESNET = 'baselines/resnet_scenes_tiny.py'
DATA = ' '.join(data_options('data'))
SHORT = 'train_cfg.max_iters=1 train_cfg.val_interval=1000'
DOORS = {
    'train': ('train', f'train {RESNET} --work-dir work --cfg-options {DATA} {" ".join(SMALL)} {SHORT}'),
    'test': ('val', f'test {RESNET} $FX/resnet.pth --work-dir work --cfg-options {DATA}'),
    'check-data': ('val', f'check-data {RESNET} --splits val --workers 1 --cfg-options {DATA}'),
    'robustness': (
        'val',
        f'robustness {RESNET} $FX/resnet.pth --out o --kinds jpeg --severities 1 --cfg-options {DATA}',
    ),
}
"""The split of which a command reads the labels, and the command."""
Write = Callable[[np.ndarray, Path], None]


def _save(mode: str | None, form: str = 'PNG', **options: object) -> Write:
    def write(ids: np.ndarray, path: Path) -> None:
        image = Image.fromarray(ids)
        (image if mode is None else image.convert(mode)).save(path, form, **options)

    return write


def _array(change: Callable[[np.ndarray], np.ndarray], form: str = 'PNG') -> Write:
    return lambda ids, path: Image.fromarray(change(ids)).save(path, form)


def _palette(ids: np.ndarray, path: Path) -> None:
    image = Image.fromarray(ids, 'P')
    image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(path)


def _changed(change: Callable[[bytes], bytes]) -> Write:
    return lambda ids, path: path.write_bytes(change(path.read_bytes()))


HARMLESS = ('cut at 99 per cent', 'without its last byte')
"""Damages of a small PNG that leave all of its pixels."""
WRONG: dict[str, Write] = {
    'float': _array(lambda ids: ids.astype(np.float32), 'TIFF'),
    'float fractions': _array(lambda ids: ids.astype(np.float32) / 12, 'TIFF'),
    'RGB': _save('RGB'),
    'RGBA': _save('RGBA'),
    'grey with alpha': _save('LA'),
    'CMYK': _save('CMYK', 'TIFF'),
    '16 bits with large ids': _array(lambda ids: ids.astype(np.uint16) * 256 + 300),
    '32 bits with large ids': _array(lambda ids: ids.astype(np.int32) + 70000, 'TIFF'),
    '32 bits with negative ids': _array(lambda ids: ids.astype(np.int32) - 5, 'TIFF'),
    'ids out of range': _array(lambda ids: np.full_like(ids, CLASSES + 5)),
    'one pixel out of range': _array(lambda ids: np.where(np.arange(ids.size).reshape(ids.shape) == 50, 200, ids)),
    'JPEG': _save(None, 'JPEG'),
    'JPEG of one class': _array(lambda ids: np.full_like(ids, 3), 'JPEG'),  # all of its ids are valid
    'lossy WebP': _save('RGB', 'WEBP', quality=50),
    'too small': _array(lambda ids: ids[:48]),
    'too large': _array(lambda ids: np.pad(ids, ((0, 8), (0, 0)))),
    'turned': _array(lambda ids: ids[:90].T),
    'one pixel': _array(lambda ids: ids[:1, :1]),
    'missing': lambda ids, path: path.unlink(),
    'folder': lambda ids, path: (path.unlink(), path.mkdir()),
    **{name: _changed(change) for name, change in DAMAGES.items() if name not in HARMLESS},
}
"""Ways to replace a label map by an unusable one."""
RIGHT: dict[str, Write] = {
    'palette': _palette,
    '16 bits': _array(lambda ids: ids.astype(np.uint16)),
    '32 bits': _array(lambda ids: ids.astype(np.int32), 'TIFF'),
    'ignored pixels': _array(lambda ids: np.where(ids == 0, 255, ids)),
    'one class': _array(np.zeros_like),
    'lossless TIFF': _save(None, 'TIFF'),
    'compressed': _save(None, 'PNG', compress_level=9),
}


def _labels(write: Write, split: str, folder: Path, kit: Path) -> None:
    shutil.copytree(kit / 'data', folder / 'data')
    for path in sorted((folder / 'data' / 'ann_dir' / split).iterdir()):
        write(np.asarray(Image.open(path)).astype(np.uint8), path)


LISTED = (r'the list of images \S+/list\.txt', 'ann_file')
LISTS: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    'missing': (None, LISTED),
    'empty': (b'', LISTED),
    'blank lines': (b'\n \n\n', LISTED),
    'binary': (bytes(range(256)), LISTED),
    'null bytes': (b'00000\0\n', LISTED),
    'latin-1': (b'caf\xe9\n', LISTED),
    'UTF-16': ('00000\n'.encode('utf-16'), LISTED),
    'names of missing images': (b'nope\n', (r'nope\.png',)),
    'names with suffixes': (b'00000.png\n', (r'00000\.png\.png',)),
}
"""Contents of the list of images, and what the message must name."""


def _list(content: bytes | None, folder: Path, kit: Path) -> None:
    shutil.copytree(kit / 'data', folder / 'data')
    if content is not None:
        (folder / 'data' / 'list.txt').write_bytes(content)


def _suffix(place: str, folder: Path, kit: Path) -> None:
    shutil.copytree(kit / 'data', folder / 'data')
    for path in (folder / 'data' / place).rglob('*.png'):
        path.rename(path.with_suffix('.bmp'))


def _emptied(place: str, folder: Path, kit: Path) -> None:
    shutil.copytree(kit / 'data', folder / 'data')
    for path in (folder / 'data' / place).rglob('*.png'):
        path.unlink()


def _removed(place: str, folder: Path, kit: Path) -> None:
    shutil.copytree(kit / 'data', folder / 'data')
    shutil.rmtree(folder / 'data' / place)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    for door, (split, line) in DOORS.items():
        for name, write in WRONG.items():
            prepare = functools.partial(_labels, write, split)
            yield Case(f'labels/{name}/{door}', line, named=(r'ann_dir/\w+|\d{5}\.png',), prepare=prepare)
        for name, write in RIGHT.items():
            yield Case(f'labels/{name}/{door}', line, ok=True, prepare=functools.partial(_labels, write, split))
        if door == 'robustness':
            continue
        listed = f'{line} {split}_dataloader.dataset.ann_file=list.txt'
        listed = (
            listed.replace('val_dataloader.dataset.ann', 'test_dataloader.dataset.ann') if door == 'test' else listed
        )
        for name, (content, named) in LISTS.items():
            yield Case(f'labels/list {name}/{door}', listed, named=named, prepare=functools.partial(_list, content))
        for name, content in {'one image': b'00000\n', 'with blank ends': b'00000 \r\n00001\r\n'}.items():
            yield Case(f'labels/list {name}/{door}', listed, ok=True, prepare=functools.partial(_list, content))
        images = 'img_dir' if split == 'train' else 'img_lq'
        for kind, change in {
            'of another suffix': _suffix,
            'none in the folder': _emptied,
            'no folder': _removed,
        }.items():
            for place in (images, 'ann_dir'):
                prepare = functools.partial(change, f'{place}/{split}')
                named = rf'folder \S*{place}' if kind == 'no folder' else place
                yield Case(f'labels/{place} {kind}/{door}', line, named=(named,), prepare=prepare)
