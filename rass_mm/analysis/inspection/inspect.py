"""Finds out which kind of file or folder of this package a path is, and returns its facts."""

from pathlib import Path

from rass_mm.analysis.inspection.facts import Facts, refusal
from rass_mm.analysis.inspection.folders import CONTENTS, folder
from rass_mm.analysis.inspection.records import json_record, manifest
from rass_mm.analysis.inspection.weights import checkpoint, tensors
from rass_mm.errors import ConfigError
from rass_mm.files.regular import is_special

START = 512
SIGNATURES = {
    b'\x89PNG': 'a PNG image',
    b'\xff\xd8\xff': 'a JPEG image',
    b'GIF8': 'a GIF image',
    b'RIFF': 'a WebP image or another RIFF file',
    b'BM': 'a BMP image',
    b'\x93NUMPY': 'a NumPy array',
    b'\x89HDF': 'an HDF5 file',
    b'SQLite': 'an SQLite database',
    b'PK\x05\x06': 'an empty zip file',
    b'II*\0': 'a TIFF image',
    b'MM\0*': 'a TIFF image',
    b'%PDF': 'a PDF document',
    b'\x1f\x8b': 'a gzip archive',
    b'BZh': 'a bzip2 archive',
    b'\xfd7zXZ': 'an xz archive',
    b'7z\xbc\xaf': 'a 7-Zip archive',
    b'PAR1': 'a Parquet file',
    b'\x7fELF': 'a program or library',
    b'\x80\x02\x8a\nl\xfc\x9cF\xf9': 'a checkpoint in the format of torch.save before PyTorch 1.6, which can run code',
    b'\x80': 'a pickle that is not in the format of torch.save, which can run code',
    b'version https://git-lfs': 'a Git LFS pointer in the place of a file',
    b'<': 'a web page or an XML file',
    b'#!': 'a script',
}
"""First bytes of other files -> what they are."""
BINARY = (b'RIFF', b'BM')
"""Those of them with which a text may begin too."""
TAR, TAR_AT = b'ustar', 257
"""Bytes inside the first header of a tar archive, and their position."""
SAFETENSORS = 8
"""Position of the `{` of a safetensors header, behind its length."""


def inspect(path: Path) -> Facts:
    """Returns the facts of a file or folder, see `facts.FIELDS`. No code in it is run.

    Raises:
        ConfigError: the path does not exist, or is not a file or folder of this package.
        RassError: the file is damaged.
    """
    path = path.expanduser()
    if path.is_dir():
        return folder(path)
    if not path.exists():
        raise ConfigError(f'{path} does not exist. Pass a file or a folder.')
    if is_special(path):
        raise refusal(path, 'a pipe or a device')
    if path.name in CONTENTS and path.suffix == '.json' and path.name != 'config.json':
        return folder(path.absolute().parent)
    return _file(path)


def _file(path: Path) -> Facts:
    try:
        with path.open('rb') as file:
            start = file.read(START)
    except OSError as error:
        error.filename = path  # a failed read has no file name
        raise
    if not start:
        raise refusal(path, 'an empty file')
    if start.startswith(b'PK\x03\x04'):
        return checkpoint(path)
    if len(start) > SAFETENSORS and start[SAFETENSORS : SAFETENSORS + 1] == b'{' and b'\0' in start[:SAFETENSORS]:
        return tensors(path)
    if path.suffix == '.safetensors' and not _signature(start):
        return tensors(path)
    if start.lstrip()[:1] in (b'{', b'['):
        return manifest(path) if path.suffix == '.jsonl' else json_record(path)
    raise refusal(path, _signature(start) or ('a binary file of an unknown kind' if b'\0' in start else 'a text file'))


def _signature(start: bytes) -> str | None:
    """Returns what a file of another kind is by its first bytes, or None if they are not known."""
    if start.startswith(TAR, TAR_AT):
        return 'a tar archive'
    first = next((first for first in SIGNATURES if start.startswith(first)), None)
    return None if first is None or (first in BINARY and b'\0' not in start) else SIGNATURES[first]
