"""Jobs whose images come out of containers, and whose outputs go into containers: names, bytes, resuming, shards."""

import logging
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from packed import degraded, files_of, images_in, lines_in, restored
from sharded import contents
from test_pools import FakePool

from rass_mm.errors import ConfigError, DataError
from rass_mm.files.containers.kinds import KINDS, write_container
from rass_mm.files.manifest import MANIFEST
from rass_mm.inference.plan import plan_outputs, restored_name
from rass_mm.jobs.merge import merge_shards
from rass_mm.jobs.part import STAGING
from rass_mm.jobs.status import job_state

pytestmark = pytest.mark.usefixtures('small_packs')  # of four images


@pytest.mark.parametrize('job', [restored, degraded])
@pytest.mark.parametrize('pack', [None, *KINDS])
@pytest.mark.parametrize('source', ['folder', *KINDS, pytest.param('both', marks=pytest.mark.slow)])
def test_containers_make_the_images_of_a_folder(job, source, pack, sources, expected, out):
    done = job(sources[source], out, pack=pack)
    assert done.made == 30 and images_in(out) == expected[job]
    packs = sorted(path.name for path in out.glob('pack-*'))
    assert packs == ([f'pack-{number:05d}.{pack}' for number in range(8)] if pack else [])
    assert not (out / STAGING).exists() and not (pack and list(out.rglob('*.png')))
    assert list(lines_in(out)) == sorted(lines_in(out)) and len(lines_in(out)) == 30
    before = contents(out)
    assert job(sources[source], out, pack=pack).made == 0 and contents(out) == before


@pytest.mark.parametrize('job', [restored, degraded])
@pytest.mark.parametrize('pack', [None, 'tar'])
def test_a_pool_makes_the_images_of_one_process(job, pack, sources, expected, out):
    assert job(sources['parquet'], out, pack=pack, pool=FakePool()).made == 30
    assert images_in(out) == expected[job] and not (out / STAGING).exists()
    assert job(sources['parquet'], out, pack=pack, pool=FakePool()).made == 0


@pytest.mark.parametrize('job', [restored, degraded])
def test_shards_make_the_images_of_one_process(job, sources, expected, out):
    for number in (2, 0, 3, 1):
        job(sources['tar'], out, number, pack='tar')
    assert job_state(out).complete and merge_shards(out) == 30
    assert images_in(out) == expected[job] and all('shard-' in path.name for path in out.glob('pack-*'))
    before = contents(out)
    assert job(sources['tar'], out, pack='tar').made == 0 and contents(out) == before


@pytest.mark.parametrize('job', [restored, degraded])
def test_damaged_images_are_named_with_their_container(job, photos, tmp_path, out):
    (tmp_path / 'bad.png').write_bytes(b'\x89PNG\r\n')
    source = tmp_path / 'photos.tar'
    write_container(source, [*files_of(photos)[:5], ('part 9/bad.png', tmp_path / 'bad.png')])
    with pytest.raises(DataError) as found:
        job(source, out, pack='tar')
    text = str(found.value)
    assert f'{source}: part 9/bad.png' in text
    assert STAGING not in text and '1 of 6 images' in text and len(images_in(out)) == 5


@pytest.mark.parametrize('job', [restored, degraded])
def test_files_and_packs_are_not_mixed(job, sources, out):
    said = {restored: 'was made with other settings', degraded: 'describes a copy made with --pack tar, but'}
    job(sources['tar'], out, pack='tar')
    for pack in (None, 'parquet'):
        with pytest.raises(DataError, match=said[job]):
            job(sources['tar'], out, pack=pack)
    (out / MANIFEST).unlink()
    with pytest.raises(DataError, match='pack-00000.tar'):
        job(sources['tar'], out, pack='tar')


def test_a_full_disk_is_no_damaged_image(sources, expected, out, monkeypatch):
    def full(suffix, prefix, folder):
        assert folder.name == STAGING
        raise OSError(28, 'No space left on device', str(folder))

    with monkeypatch.context() as patch, pytest.raises(DataError, match='Free some disk space'):
        patch.setattr('rass_mm.files.containers.kinds.tempfile', SimpleNamespace(mkstemp=full))
        degraded(sources['tar'], out)
    assert degraded(sources['tar'], out).made == 30 and images_in(out) == expected[degraded]


def test_hostile_names_write_nothing(tmp_path, out):
    source = tmp_path / 'photos.tar'
    with tarfile.open(source, 'w') as archive:
        archive.addfile(tarfile.TarInfo('../evil.png'))
    for job, pack in ((restored, None), (restored, 'tar'), (degraded, None), (degraded, 'parquet')):
        with pytest.raises(DataError, match='leads out of the output folder'):
            job(source, out, pack=pack)
    assert list(tmp_path.iterdir()) == [source]


def test_a_pack_name_in_a_manifest_leads_nowhere(sources, out):
    restored(sources['tar'], out, pack='tar')
    lines = (out / MANIFEST).read_text().replace('pack-00001.tar', '../../pack-00001.tar')
    (out / MANIFEST).write_text(lines)
    assert restored(sources['tar'], out, pack='tar').made == 4


def test_compressed_containers_and_wrong_places_are_refused(sources, tmp_path, out):
    packed = tmp_path / 'photos.tar.gz'
    packed.write_bytes(b'\x1f\x8b' + bytes(100))
    with pytest.raises(DataError, match='compressed with gzip'):
        restored(packed, out)
    with pytest.raises(DataError, match='is in the output folder'):
        restored(sources['tar'], sources['tar'].parent, pack='tar')
    with pytest.raises((DataError, ConfigError), match='single image'):
        restored(next(sources['folder'].rglob('*.png')), out, pack='tar')


@pytest.mark.parametrize('job', [restored, degraded])
def test_a_pattern_of_containers(job, sources, expected, tmp_path, out, monkeypatch):
    job(f'{sources["both"]}/*.*', out)
    assert images_in(out) == expected[job]
    job(f'{sources["both"]}/*.tar', tmp_path / 'tar')
    assert 0 < len(images_in(tmp_path / 'tar')) < 30 and images_in(tmp_path / 'tar').items() <= expected[job].items()
    monkeypatch.chdir(sources['both'])
    job('*.*', tmp_path / 'here')
    assert images_in(tmp_path / 'here') == expected[job]
    said = {
        restored: f'The container {sources["both"]}/part.tar is in the output folder {sources["both"]}',
        degraded: f'The output folder {sources["both"]} is inside the image folder {sources["both"]}',
    }
    with pytest.raises(DataError, match=re.escape(said[job])):
        job(f'{sources["both"]}/*.tar', sources['both'])


@pytest.mark.parametrize('job', [restored, degraded])
def test_a_container_is_not_resolved_for_each_of_its_images(job, sources, out, monkeypatch):
    calls, resolve = [], Path.resolve
    monkeypatch.setattr(Path, 'resolve', lambda path, **options: calls.append(path) or resolve(path, **options))
    job(sources['tar'], out, pack='tar')
    assert calls.count(sources['tar']) == 3 and calls.count(out) < 5


def test_a_pattern_of_images_makes_the_copy_of_its_folder(sources, expected, tmp_path, out):
    for number in range(2):
        degraded(f'{sources["folder"]}/**/*.png', out, number, 2)
    merge_shards(out)
    assert images_in(out) == expected[degraded]
    degraded(sources['folder'], tmp_path / 'one')
    assert (out / MANIFEST).read_text() == (tmp_path / 'one' / MANIFEST).read_text()
    with pytest.raises(DataError, match='is inside the image folder'):
        degraded(f'{sources["folder"]}/**/*.png', sources['folder'] / 'out')
    with pytest.raises(DataError, match='No images'):
        degraded(f'{sources["folder"]}/*.jpg', tmp_path / 'none')


def test_containers_that_are_given_one_by_one_have_no_common_name(photos, tmp_path, out):
    name, path = files_of(photos)[0]
    for container in 'ab':
        write_container(tmp_path / f'{container}.tar', [(name, path)])
    with pytest.raises(DataError, match=r'would both become .*Pass the containers as one folder or pattern'):
        plan_outputs([tmp_path / 'a.tar', tmp_path / 'b.tar'], out, restored_name)
    assert len(plan_outputs([tmp_path / '*.tar'], out, restored_name).tasks) == 2


def test_images_win_over_containers_in_a_folder(photos, tmp_path, out, caplog):
    folder = tmp_path / 'mixed'
    folder.mkdir()
    name, path = files_of(photos)[0]
    (folder / 'a.png').write_bytes(path.read_bytes())
    write_container(folder / 'others.tar', [(name, path)])
    with caplog.at_level(logging.WARNING):
        assert restored(folder, out).made == 1
    assert 'files of type .tar (1), e.g. others.tar' in caplog.text


def test_names_that_differ_in_case_need_a_file_system_that_knows_it(photos, tmp_path, out, monkeypatch):
    source, path = tmp_path / 'photos.tar', files_of(photos)[0][1]
    write_container(source, [('a.png', path), ('A.png', path)])
    assert restored(source, out).made == 2
    monkeypatch.setattr('rass_mm.files.containers.search._ignores_case', lambda folder: True)
    for job in (restored, degraded):
        with pytest.raises(DataError, match='differ in upper and lower case only'):
            job(source, tmp_path / job.__name__)
