"""Parquet files as containers: rows as pyarrow reads and writes them, and files that cannot be used."""

import time

import pyarrow
import pytest
from pyarrow import parquet as pq
from pyarrow.parquet import encryption

from rass_mm.errors import DataError, InstallationError
from rass_mm.files import optional
from rass_mm.files.containers import parquet
from rass_mm.files.containers.kinds import list_container, read_member, write_container


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'images.parquet'


TYPES = (pyarrow.string(), pyarrow.binary())


def write(path, paths=('a.png', 'b/c.png'), data=None, types=TYPES, **options):
    data = [text.encode() for text in paths] if data is None else data
    columns = {'path': pyarrow.array(paths, types[0]), 'bytes': pyarrow.array(data, types[1])}
    pq.write_table(pyarrow.table(columns), path, **options)
    return path


def contents(path):
    return {name: read_member(member) for name, member in list_container(path).members.items()}


@pytest.mark.parametrize('types', [TYPES, (pyarrow.large_string(), pyarrow.large_binary())])
@pytest.mark.parametrize('rows', [1, 3, 100])
def test_rows_are_those_of_pyarrow_in_any_order(path, types, rows):
    names = [f'{number % 7}/ä{number}.png' for number in range(20)]
    write(path, names, types=types, row_group_size=rows, compression='zstd')
    listed = list_container(path).members
    for name in [*names, *reversed(names), names[0], names[-1]]:
        assert read_member(listed[name]) == name.encode()


def test_a_file_is_opened_once_for_all_its_row_groups(path, monkeypatch):
    listed = list_container(write(path, [f'{number}.png' for number in range(50)], row_group_size=1)).members
    opened, whole = [], parquet.parquet.ParquetFile
    monkeypatch.setattr(parquet.parquet, 'ParquetFile', lambda path: opened.append(path) or whole(path))
    assert [read_member(listed[name]) for name in listed] == [name.encode() for name in listed]
    assert opened == [path]


def test_written_files_are_read_by_pyarrow(path, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, 'GROUP_ROWS', 2)
    files = {}
    for number in range(5):
        files[f'{number}.png'] = tmp_path / str(number)
        files[f'{number}.png'].write_bytes(bytes([number]) * 1000)
    write_container(path, files.items())
    table = pq.read_table(path)
    assert table.schema.field('path').type == pyarrow.string() and table.schema.field('bytes').type == pyarrow.binary()
    assert table.to_pydict() == {'path': list(files), 'bytes': [file.read_bytes() for file in files.values()]}
    assert pq.ParquetFile(path).num_row_groups == 3 and contents(path) == {n: f.read_bytes() for n, f in files.items()}


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (
            {'types': (pyarrow.binary(), pyarrow.binary())},
            'column path has the type binary, but must have the type string',
        ),
        ({'data': ['a', 'b'], 'types': (pyarrow.string(), pyarrow.string())}, 'column bytes has the type string'),
        ({'data': [[b'a'], [b'b']], 'types': (pyarrow.string(), pyarrow.list_(pyarrow.binary()))}, 'has the type list'),
        ({'paths': ['a.png', None], 'data': [b'', b'']}, 'row 1 of row group 0 has no path'),
        ({'paths': ['a.png', 'a.png']}, "two members with the name 'a.png'"),
        ({'paths': ['/a.png', 'b']}, 'leads out of the output folder'),
        ({'paths': ['a/../../b.png', 'b']}, 'leads out'),
        ({'paths': ['', 'b']}, 'is not the name of a file'),
        ({'paths': ['a\0.png', 'b']}, 'is not the name of a file'),
    ],
)
def test_other_columns_and_names_are_refused(path, change, said):
    with pytest.raises(DataError) as found:
        list_container(write(path, **change))
    assert said in str(found.value) and str(path) in str(found.value)


def test_missing_columns_are_named(path):
    pq.write_table(pyarrow.table({'image': [b'1'], 'caption': ['x']}), path)
    with pytest.raises(DataError, match=r'has the columns image, caption, but one column path \(string\)'):
        list_container(path)


def test_a_row_without_bytes_is_an_error_of_that_image(path):
    listed = list_container(write(path, data=[None, b'b'])).members
    with pytest.raises(DataError, match='row 0 of row group 0 has no bytes'):
        read_member(listed['a.png'])
    assert read_member(listed['b/c.png']) == b'b'


@pytest.mark.parametrize('change', [lambda data: data[:-20], lambda data: b'', lambda data: b'PAR1' * 10])
def test_damaged_files_are_refused(path, change):
    write(path).write_bytes(change(write(path).read_bytes()))
    with pytest.raises(DataError, match='cannot be read as a Parquet file'):
        list_container(path)


def test_damaged_pages_are_errors_of_their_images(path):
    write(
        path, ['a.png', 'b.png'], [b'x' * 5000, b'y' * 5000], row_group_size=1, use_dictionary=False, compression='gzip'
    )
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b'\xff' * column.total_compressed_size
    path.write_bytes(data)
    listed = list_container(path).members
    with pytest.raises(DataError, match='a.png: .* cannot be read as a Parquet file'):
        read_member(listed['a.png'])
    assert read_member(listed['b.png']) == b'y' * 5000


def test_fewer_rows_than_stated_are_no_smaller_file(path):
    write(path, [f'{number}.png' for number in range(300)], use_dictionary=False, compression='none')
    data, footer = path.read_bytes(), -int.from_bytes(path.read_bytes()[-8:-4], 'little') - 8
    assert b'\xd8\x04' in data[footer:]  # 300, as footers have it
    path.write_bytes(data[:footer] + data[footer:].replace(b'\xd8\x04', b'\xfe\x7f'))
    with pytest.raises(DataError, match='row group 0 has 300 rows instead of 8191'):
        list_container(path)


def test_a_long_name_is_refused_at_once(path):
    write(path, ['x/' * 20_000_000], [b''], compression='zstd')
    start = time.process_time()
    with pytest.raises(DataError, match=r"the name 'x/x/.* is too long"):
        list_container(path)
    assert time.process_time() - start < 3


def test_large_row_groups_are_refused(path, monkeypatch):
    monkeypatch.setattr(parquet, 'MOST_GROUP', 1000)
    write(path, ['a.png'], [bytes(2000)], use_dictionary=False)
    with pytest.raises(DataError, match='row group 0 has .* bytes, but at most 1000 .* row_group_size=256'):
        list_container(path)


def test_a_value_repeated_by_all_rows_is_decoded_row_by_row(path, monkeypatch):
    names = [f'{number}.png' for number in range(1000)]
    repeated = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 1000, pyarrow.int8()), [bytes(2**20)])
    table = pyarrow.table({'path': names, 'bytes': repeated})
    pq.write_table(table, path, compression='zstd', store_schema=False)
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(parquet, 'MOST_DECODED', 2**21)
    before = pyarrow.default_memory_pool().max_memory()
    listed = list_container(path).members
    assert all(len(read_member(listed[name])) == 2**20 for name in names[:50])
    assert pyarrow.default_memory_pool().max_memory() < max(before + 1, 64 * 2**20)


class Client(encryption.KmsClient):
    def wrap_key(self, key_bytes, master_key_identifier):
        return key_bytes

    def unwrap_key(self, wrapped_key, master_key_identifier):
        return wrapped_key


@pytest.mark.parametrize('plain', [False, True])
def test_encrypted_files_are_refused(path, plain):
    factory = encryption.CryptoFactory(lambda configuration: Client())
    settings = encryption.EncryptionConfiguration(
        footer_key='key', column_keys={'key': ['path', 'bytes']}, plaintext_footer=plain
    )
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), settings)
    write(path, encryption_properties=properties)
    with pytest.raises(DataError, match='Encrypted files are not supported'):
        list_container(path)


def test_a_damaged_file_is_not_taken_for_encrypted_by_its_name(tmp_path, monkeypatch):
    path = tmp_path / 'decrypted' / 'a.parquet'
    path.parent.mkdir()

    def damaged(path):
        raise OSError(f'{path}: corrupt snappy data')

    monkeypatch.setattr(parquet.parquet, 'ParquetFile', damaged)
    with pytest.raises(DataError, match=r'corrupt snappy data\)\. Copy the file again'):
        list_container(write(path))


def test_without_pyarrow_the_message_says_what_to_install(path, monkeypatch):
    write(path)

    def missing(name):
        raise ModuleNotFoundError("No module named 'pyarrow'")

    monkeypatch.setattr(optional.importlib, 'import_module', missing)
    with pytest.raises(
        InstallationError, match=r'No module named .pyarrow.\)\. Install them with: pip install "rass_mm\[ray\]"'
    ):
        list_container(path)
