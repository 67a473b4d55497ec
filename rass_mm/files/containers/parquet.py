"""Parquet files as containers: one row per file, with its name in the column `path` and its bytes in `bytes`.

This is the only module that imports pyarrow.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow
from pyarrow import parquet

from rass_mm.errors import DataError
from rass_mm.files.containers.members import AGAIN, Listing, Member, add_member, plain_name

PATH, BYTES = 'path', 'bytes'
SCHEMA = pyarrow.schema([(PATH, pyarrow.string()), (BYTES, pyarrow.binary())])
TEXTS = (pyarrow.string(), pyarrow.large_string())
BINARIES = (pyarrow.binary(), pyarrow.large_binary())
ENCRYPTED = b'PARE'
"""Last bytes of a file with an encrypted footer."""
UNREADABLE = 'Cannot decrypt'
"""Words of pyarrow for an encrypted column of a file whose footer is not."""
MOST_GROUP = 2**30
"""Largest row group in bytes, as the file states it."""
MOST_DECODED, MOST_ROWS = 2**28, 1024
"""Bytes and rows that are decoded at a time. A stored value may be repeated by all rows of its group."""
GROUP_BYTES, GROUP_ROWS = 2**25, 256
"""Bytes and rows of the row groups that are written."""


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Context manager. Raises the errors of pyarrow as a DataError that names the file."""
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        advice = 'Encrypted files are not supported' if _is_encrypted(path, reason) else 'Copy the file again'
        raise DataError(f'{path} cannot be read as a Parquet file ({reason}). {advice}.') from None


def _is_encrypted(path: Path, reason: str) -> bool:
    """Returns whether a file that cannot be read is encrypted: its footer by its last bytes, else by the reason."""
    try:
        with path.open('rb') as file:
            file.seek(-len(ENCRYPTED), os.SEEK_END)
            if file.read() == ENCRYPTED:
                return True
    except OSError:
        pass
    return UNREADABLE in reason.replace(str(path), '')


def listing(path: Path) -> Listing:
    """Lists the rows of a Parquet file.

    Raises:
        DataError: the file is damaged or encrypted, has other columns, or a row whose name is missing or not allowed.
    """
    status = path.stat()
    members: dict[str, Member] = {}
    with _explained(path), parquet.ParquetFile(path) as file:
        _check_columns(path, file.schema_arrow)
        for group in range(file.num_row_groups):
            _check_group(path, file, group)
            stated, row = file.metadata.row_group(group).num_rows, -1
            for row, name in enumerate(_names(file, group)):
                if name is None:
                    raise DataError(f'{path}: row {row} of row group {group} has no {PATH}. {AGAIN}')
                place = (group, row)
                plain = plain_name(name, path)
                add_member(members, Member(path, plain, status.st_size, status.st_mtime_ns, place))
            if row + 1 != stated:
                raise ValueError(f'row group {group} has {row + 1} rows instead of {stated}')
    return Listing(members, {})


def _check_columns(path: Path, schema: pyarrow.Schema) -> None:
    for name, kinds, kind in ((PATH, TEXTS, 'string'), (BYTES, BINARIES, 'binary')):
        number = schema.get_field_index(name)
        if number < 0:
            raise DataError(
                f'{path} has the columns {", ".join(schema.names) or "(none)"}, but one column {PATH} (string) and one '
                f'column {BYTES} (binary) are needed.'
            )
        if schema.field(number).type not in kinds:
            raise DataError(
                f'{path}: the column {name} has the type {schema.field(number).type}, but must have the type {kind}.'
            )


def _check_group(path: Path, file: parquet.ParquetFile, group: int) -> None:
    size = file.metadata.row_group(group).total_byte_size
    if not 0 <= size <= MOST_GROUP:
        raise DataError(
            f'{path}: row group {group} has {size} bytes, but at most {MOST_GROUP} are read at a time. Write the file '
            'with smaller row groups, e.g. row_group_size=256 in pyarrow.'
        )


def _names(file: parquet.ParquetFile, group: int) -> Iterator[str | None]:
    for batch in _batches(file, group, PATH):
        yield from batch.column(0).to_pylist()


def _batches(file: parquet.ParquetFile, group: int, column: str) -> Iterator[pyarrow.RecordBatch]:
    """Yields a column of a row group in batches whose decoded size is limited."""
    stored = max(file.metadata.row_group(group).total_byte_size, 1)
    rows = min(max(MOST_DECODED // stored, 1), MOST_ROWS)
    return file.iter_batches(rows, row_groups=[group], columns=[column], use_threads=False)


class _Rows:
    """Bytes of the rows of a row group, for reading in the order of the rows."""

    def __init__(self, path: Path, file: parquet.ParquetFile, group: int) -> None:
        self.path, self.file, self.group = path, file, group
        self._rewind()

    def _rewind(self) -> None:
        self.batches, self.batch, self.start, self.end = _batches(self.file, self.group, BYTES), None, 0, 0

    def read(self, row: int) -> bytes | None:
        """Returns the bytes of a row, or None if it has none. A row before the last one is found from the start."""
        if row < self.start:
            self._rewind()
        while row >= self.end:
            self.batch = next(self.batches, None)
            if self.batch is None:
                raise DataError(f'{self.path}: row group {self.group} has no row {row}. Copy the file again.')
            self.start, self.end = self.end, self.end + self.batch.num_rows
        return self.batch.column(0)[row - self.start].as_py()


@lru_cache(maxsize=1)
def _opened(path: Path, _size: int, _mtime_ns: int) -> parquet.ParquetFile:
    """Opens a file once for all its row groups, because each time, the records of all of them are read."""
    return parquet.ParquetFile(path)


@lru_cache(maxsize=1)
def _rows(path: Path, group: int, size: int, mtime_ns: int) -> _Rows:
    return _Rows(path, _opened(path, size, mtime_ns), group)


def read(member: Member) -> bytes:
    """Returns the bytes of a row of a Parquet file.

    Raises:
        DataError: the file is damaged, or the row has no bytes.
    """
    group, row = member.place
    try:
        with _explained(member.container):
            data = _rows(member.container, group, member.size, member.mtime_ns).read(row)
    except DataError as error:
        _rows.cache_clear()
        _opened.cache_clear()
        raise DataError(f'{member.name}: {error}') from None
    if data is None:
        raise DataError(f'{member}: row {row} of row group {group} has no {BYTES}.')
    return data


def write(path: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Writes files into a Parquet file. They are not compressed, because images are compressed already.

    Args:
        path: the Parquet file.
        files: names in the container, and the files.

    Raises:
        DataError: a file is too large.
        OSError: a file cannot be read, or the container cannot be written.
    """
    options = {'compression': 'none', 'use_dictionary': False, 'write_statistics': [PATH]}
    with parquet.ParquetWriter(str(path), SCHEMA, **options) as writer:
        for rows in _grouped(files):
            try:
                writer.write_table(pyarrow.table(dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True)), SCHEMA))
            except pyarrow.ArrowInvalid as error:
                raise DataError(
                    f'{rows[0][0]} cannot be written to a Parquet file ({error}). Use a tar file.'
                ) from None


def _grouped(files: Iterable[tuple[str, Path]]) -> Iterator[list[tuple[str, bytes]]]:
    rows, size = [], 0
    for name, file in files:
        rows.append((name, file.read_bytes()))
        size += len(rows[-1][1])
        if len(rows) >= GROUP_ROWS or size >= GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
