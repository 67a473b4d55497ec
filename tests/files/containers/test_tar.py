"""Tar files as containers: their members as `tarfile` and WebDataset read them, and hostile files."""

import io
import tarfile
from types import SimpleNamespace

import pytest
import webdataset

from rass_mm.errors import DataError
from rass_mm.files.containers import tar
from rass_mm.files.containers.kinds import extracted, list_container, read_member, write_container
from rass_mm.files.containers.search import images_in


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'images.tar'


def entry(name, data=b'data', kind=tarfile.REGTYPE, **values):
    header = tarfile.TarInfo(name)
    header.type, header.size = kind, len(data)
    for key, value in values.items():
        setattr(header, key, value)
    return header, data


def write(path, *entries, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, 'w', format=format) as archive:
        for header, data in entries:
            archive.addfile(header, io.BytesIO(data))
    return path


def contents(path):
    return {name: read_member(member) for name, member in list_container(path).members.items()}


@pytest.mark.parametrize('format', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_are_those_of_tarfile(path, format):
    names = [
        './a.png',
        'b/./c.png',
        'b//d.png',
        'long/' * 40 + 'ä.png',
        'x' * 200 + '.png',
        b'\xff.png'.decode(errors='surrogateescape'),
    ]
    folder, link = entry('b', b'', tarfile.DIRTYPE), entry('l.png', b'', tarfile.SYMTYPE, linkname='a.png')
    hard, pipe = entry('h.png', b'', tarfile.LNKTYPE, linkname='a.png'), entry('p.png', b'', tarfile.FIFOTYPE)
    write(
        path,
        folder,
        link,
        hard,
        pipe,
        *(entry(name, name.encode(errors='surrogateescape')) for name in names),
        format=format,
    )
    plain = ['a.png', 'b/c.png', 'b/d.png', *names[3:]]
    assert contents(path) == {new: old.encode(errors='surrogateescape') for new, old in zip(plain, names, strict=True)}
    assert list_container(path).left_out == {
        'links in tar files': ['l.png', 'h.png'],
        'special members of tar files': ['p.png'],
    }


def test_written_files_are_read_by_webdataset_and_have_no_times_or_owners(path, tmp_path):
    files = {}
    for name in ('b/2.labels.png', 'b/2.overlays.png', 'a.labels.png', 'a.overlays.png', 'ä/3.jpg'):
        files[name] = tmp_path / name.replace('/', '-')
        files[name].write_bytes(name.encode())
    write_container(path, files.items())
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample['__key__'] for sample in samples] == ['a', 'b/2', 'ä/3']
    assert samples[1]['labels.png'] == b'b/2.labels.png' and samples[1]['overlays.png'] == b'b/2.overlays.png'
    with tarfile.open(path) as archive:
        found = [(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in archive.getmembers()]
    assert set(found) == {(0, 0, 0, '', '', 0o644)}
    before = path.read_bytes()
    write_container(path, reversed(files.items()))
    assert path.read_bytes() == before


def test_a_file_that_webdataset_wrote_is_read(path):
    with webdataset.TarWriter(str(path)) as sink:
        sink.write({'__key__': 'a/1', 'png': b'one', 'cls': 3, 'json': {'k': 1}})
        sink.write({'__key__': 'a/2', 'png': b'two'})
    found, left_out = images_in(path.parent, [path], ('.png',))
    assert {name: read_member(member) for name, member in found.items()} == {'a/1.png': b'one', 'a/2.png': b'two'}
    assert sorted(left_out) == ['files of type .cls', 'files of type .json']


@pytest.mark.parametrize(
    ('entries', 'said'),
    [
        ([entry('/etc/a.png')], "'/etc/a.png' of a member leads out of the output folder"),
        ([entry('a/../../b.png')], "'a/../../b.png' of a member leads out"),
        ([entry('..')], 'leads out'),
        ([entry('./')], 'is not the name of a file'),
        ([entry('x' * 300 + '.png')], 'is too long'),
        ([entry('a/' * 3000 + 'b.png')], 'is too long'),
        ([entry('a.png'), entry('./a.png')], "two members with the name 'a.png'"),
        (
            [entry('a.png', pax_headers={'GNU.sparse.major': '1', 'GNU.sparse.minor': '0'}, data=b'0\n' + bytes(510))],
            'sparse',
        ),
        ([entry('a.png', pax_headers={'size': '-512'})], 'ends behind the end of the file'),
        ([entry('a.png', pax_headers={'size': '99999999999999'})], 'at most'),
        ([entry('a.png', pax_headers={'comment': 'x' * 2**14})], 'a header states a size of'),
    ],
)
def test_hostile_members_are_refused_by_name(path, entries, said):
    with pytest.raises(DataError) as found:
        list_container(write(path, *entries))
    assert said in str(found.value) and str(path) in str(found.value) and len(str(found.value)) < 600


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (lambda data: data[:512], 'cut off'),
        (lambda data: data[:700], 'unexpected end of data'),
        (lambda data: data[:1024], 'no end of archive, so it is cut off'),
        (lambda data: data[:1024] + b'x' * 512 + data[1536:], 'no valid header at byte 1024'),
        (lambda data: data + data, 'continues after its end'),
        (lambda data: b'\x1f\x8b\x08\0' + data, 'compressed with gzip'),
        (lambda data: b'BZh9' + data, 'compressed with bzip2'),
        (lambda data: b'\xfd7zXZ\0' + data, 'compressed with xz'),
        (lambda data: b'\x28\xb5\x2f\xfd' + data, 'compressed with zstd'),
        (lambda data: b'', 'empty'),
        (lambda data: b'no tar file' * 100, 'cannot be read as a tar file'),
    ],
)
def test_damaged_files_are_refused_with_the_reason(path, change, said):
    write(path, entry('a.png', b'one'), entry('b.png', b'two'))
    path.write_bytes(change(path.read_bytes()[:1024] + bytes(10240) if 'valid' in said else path.read_bytes()))
    with pytest.raises(DataError, match=said):
        list_container(path)


def test_a_member_of_a_terabyte_is_refused(path):
    header = tarfile.TarInfo('a.png')
    header.size = 2**40
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(DataError, match='1099511627776 bytes, but at most'):
        list_container(path)


@pytest.mark.parametrize(
    'body', [b'1' * 16000, b'2 ' * 8000, b'9 ab=cde\n' + b'1' * 200, b'1267 a=' + b'7' * 1259 + b'\n', b'9999 a=b\n']
)
def test_headers_that_take_tarfile_minutes_are_refused(path, body, monkeypatch):
    header = tarfile.TarInfo('pax')
    header.type, header.size = tarfile.XHDTYPE, len(body)
    path.write_bytes(header.tobuf() + body + bytes(-len(body) % 512) + tarfile.TarInfo('a.png').tobuf() + bytes(1024))
    monkeypatch.setattr(tarfile.TarInfo, '_proc_pax', lambda *_: pytest.fail('tarfile must not read it'))
    with pytest.raises(DataError, match='256 digits|no valid record'):
        list_container(path)


def test_random_damage_raises_nothing_else(path):
    import numpy as np

    write(path, entry('a.png', b'one'), entry('ä' * 90 + '.png', b'two'), entry('c.png', b'x' * 600))
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(whole)
        for place in random.integers(0, 4000, random.integers(1, 5)):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            contents(path)
        except DataError as error:
            assert str(path) in str(error)


def test_a_container_that_changes_is_noticed(path):
    member = list_container(write(path, entry('a.png'))).members['a.png']
    write(path, entry('a.png', b'other data'), entry('b.png', b'x' * 20000))
    with pytest.raises(DataError, match='was changed while it was in use'):
        read_member(member)
    path.unlink()
    with pytest.raises(DataError, match='no longer exists'):
        read_member(member)


def test_headers_are_not_kept_in_memory(path, monkeypatch):
    write(path, *(entry(f'{number}.png') for number in range(50)))
    seen = []
    archive = tarfile.open
    monkeypatch.setattr(tar.tarfile, 'open', lambda *a, **k: seen.append(archive(*a, **k)) or seen[0])
    assert len(list_container(path).members) == 50 and len(seen[0].members) <= 1


def tars(folder, **entries):
    for name, names in entries.items():
        write(folder / f'{name}.tar', *(entry(member) for member in names))
    return SimpleNamespace(find=lambda: images_in(folder, sorted(folder.iterdir()), ('.png',))[0])


def test_names_have_no_container_if_they_are_unique(tmp_path, caplog):
    assert sorted(tars(tmp_path, one=['a.png', 'b/c.png'], two=['d.png']).find()) == ['a.png', 'b/c.png', 'd.png']
    assert not caplog.text
    assert sorted(tars(tmp_path, two=['a.png']).find()) == ['one/a.png', 'one/b/c.png', 'two/a.png']
    assert 'are named a.png, so the names of all images begin with' in caplog.text


def test_members_that_are_extracted_at_the_same_time_have_files_of_their_own(path, tmp_path):
    write(path, entry('a.png', b'one'), entry('b.png', b'two'))
    a, b = list_container(path).members.values()
    target = tmp_path / 'staging' / 'a.png'
    with extracted(a, target) as one:
        with extracted(b, target) as two:
            assert (one.read_bytes(), two.read_bytes(), two.suffix) == (b'one', b'two', '.png')
        assert one.read_bytes() == b'one' and list(target.parent.iterdir()) == [one]
    assert not list(target.parent.iterdir())


def test_a_plain_tar_file_may_have_the_ending_of_a_compressed_one(tmp_path):
    write(tmp_path / 'b.tgz', entry('a.png'))
    assert sorted(tars(tmp_path, one=['a.png']).find()) == ['b/a.png', 'one/a.png']


def test_an_image_with_the_name_of_a_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match='has the name of a folder'):
        tars(tmp_path, one=['a.png', 'a.png/b.png']).find()
