"""Checks of a release: each one finds the fault that it is for, in a copy of the sources."""

import ast
import hashlib
import io
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from pathlib import PurePosixPath

import pytest
from commands import ROOT, run
from release import checks, locks, readme, reports
from release.__main__ import check_sources
from release.steps import ReleaseError, call

LICENCES = tomllib.loads((ROOT / 'licences.toml').read_text())['files']
FILES = ('LICENSE', 'CHANGELOG.md', 'CITATION.cff', 'licences.toml')


@pytest.fixture
def sources(tmp_path):
    """Copy of the files that the checks of the sources read."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / 'requirements', tmp_path / 'requirements')
    (tmp_path / 'rass_mm').mkdir()
    shutil.copy(ROOT / 'rass_mm' / 'version.py', tmp_path / 'rass_mm')
    return tmp_path


def packaged():
    """Paths of the files that the packages contain, from the sources."""
    tracked = run('git', 'ls-files', '--cached', '--others', '--exclude-standard').stdout.splitlines()
    kept = ('rass_mm', 'rass_mm_cli', 'configs')
    return [name for name in tracked if name.split('/')[0] in kept or name in ('LICENSE', *checks.SOURCES)]


def test_the_sources_are_ready_for_a_release(sources):
    assert check_sources(sources) == checks.version_of(ROOT) and checks.licences(ROOT, packaged()) == []


def changed(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def without_entries(folder):
    text = (folder / 'CHANGELOG.md').read_text()
    (folder / 'CHANGELOG.md').write_text(re.sub(r'^\* .*\n', '', text, flags=re.MULTILINE))


FAULTS = {
    'LICENSE is not the text': lambda folder: changed(folder / 'LICENSE', '2. Grant of Copyright License.', ''),
    'LICENSE is missing': lambda folder: (folder / 'LICENSE').unlink(),
    'CHANGELOG.md has no entry': without_entries,
    'CITATION.cff has not the version': lambda folder: changed(folder / 'CITATION.cff', 'version: 0', 'version: 9'),
    'light.txt is missing': lambda folder: (folder / 'requirements' / 'locks' / 'light.txt').unlink(),
}


@pytest.mark.parametrize('fault', FAULTS)
def test_a_fault_of_the_sources_ends_the_release(sources, fault):
    FAULTS[fault](sources)
    with pytest.raises(ReleaseError, match=fault):
        check_sources(sources)


def test_a_lock_file_has_an_exact_version_and_hashes_of_everything(sources):
    file = sources / 'requirements' / 'locks' / 'light.txt'
    text = file.read_text()
    assert checks.lock(file) == [] and len(re.findall('--hash=', text)) > 500
    entry = re.search(r'safetensors==\S+ \\\n(    --hash=\S+( \\)?\n)+', text)[0]
    name = entry.split(' ')[0]
    file.write_text(text.replace(entry, f'{name}\n'))
    assert checks.lock(file) == [f'light.txt: {name} has no SHA-256. Write the file again with make locks.']
    file.write_text(text.replace(entry, entry.replace('sha256:', 'md5:')))
    assert 'has no SHA-256' in checks.lock(file)[0]
    file.write_text(text.replace(name, 'safetensors>=0.4'))
    assert 'has no exact version' in checks.lock(file)[0]
    file.write_text(text.replace(name, 'safetensors==0.1'))
    with pytest.raises(ReleaseError, match=r'safetensors is 0\.1, but the tests run with'):
        check_sources(sources)
    file.write_text('')
    assert checks.lock(file) == ['light.txt names no package.']


def test_pip_refuses_a_lock_file_without_one_hash(tmp_path):
    wheel = tmp_path / 'a-1-py3-none-any.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr('a-1.dist-info/METADATA', 'Metadata-Version: 2.1\nName: a\nVersion: 1\n')
        archive.writestr('a-1.dist-info/WHEEL', 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        archive.writestr('a-1.dist-info/RECORD', '')
    (tmp_path / 'lock.txt').write_text(f'a==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n')
    pip = ('-m', 'pip', 'download', '--no-index', '--find-links', tmp_path, '--no-deps', '--require-hashes')
    pip = (*pip, '-r', tmp_path / 'lock.txt', '-d', tmp_path / 'out')
    call(sys.executable, *pip)
    (tmp_path / 'lock.txt').write_text('a==1\n')
    with pytest.raises(ReleaseError, match='Hashes are required in --require-hashes mode'):
        call(sys.executable, *pip)


def test_a_file_without_a_licence_is_found():
    names = [*packaged(), 'rass_mm/demo/photo.png']
    assert checks.licences(ROOT, names) == [
        'rass_mm/demo/photo.png has no licence: add it to licences.toml, with its licence and its origin.'
    ]
    without = [name for name in packaged() if not name.endswith('.safetensors')]
    (stale,) = checks.licences(ROOT, without)
    assert 'matches no packaged file' in stale


@pytest.mark.parametrize('line', [line for entry in LICENCES for line in entry['paths']])
def test_each_pattern_of_the_list_is_needed(sources, line):
    changed(sources / 'licences.toml', f'"{line}"', '"no/such/file"')
    faults = checks.licences(sources, packaged())
    assert 'licences.toml: no/such/file matches no packaged file. Remove it.' in faults and len(faults) > 1


def test_a_licence_needs_its_text_and_an_origin(sources):
    changed(sources / 'licences.toml', 'licence = "Apache-2.0"', 'licence = "CC-BY-4.0"')
    changed(sources / 'licences.toml', 'origin = "code of this project"', 'origin = ""')
    faults = checks.licences(sources, packaged())
    assert any("'CC-BY-4.0', whose text" in fault for fault in faults)
    assert any('has no origin' in fault for fault in faults)


def test_an_entry_of_the_version_alone_is_enough(sources):
    changed(sources / 'CHANGELOG.md', '## Unreleased', f'## {checks.version_of(ROOT)} (2026-11-28)')
    assert checks.changelog(sources) == []
    changed(sources / 'CHANGELOG.md', f'## {checks.version_of(ROOT)}', '## 0.0.1')
    assert checks.changelog(sources) != []


def test_a_package_of_more_than_20_mb_is_refused(tmp_path):
    file = tmp_path / 'rass_mm-1-py3-none-any.whl'
    with file.open('wb') as stream:
        stream.truncate(20 * 10**6)
    assert checks.size(file) == []
    with file.open('ab') as stream:
        stream.write(b'0')
    assert checks.size(file) == [f'{file.name} has 20.0 MB, but at most 20 MB are allowed.']


def packages(folder, more=(), less=()):
    """Writes a wheel and a source package with empty files of the right names."""
    names = [name for name in packaged() if name not in less] + [*more]
    wheel, sdist = folder / 'rass_mm-1-py3-none-any.whl', folder / 'rass_mm-1.tar.gz'
    with zipfile.ZipFile(wheel, 'w') as archive:
        for name in names:
            kept = name not in ('LICENSE', *checks.SOURCES)
            if kept:
                archive.writestr(f'rass_mm/{name}' if name.startswith('configs/') else name, '')
        archive.writestr('rass_mm-1.dist-info/licenses/LICENSE', (ROOT / 'LICENSE').read_text())
    with tarfile.open(sdist, 'w:gz') as archive:
        for name in [*names, 'PKG-INFO']:
            archive.addfile(tarfile.TarInfo(f'rass_mm-1/{name}'), io.BytesIO())
    return wheel, sdist


def test_packages_contain_all_modules_and_configs_and_no_tests(tmp_path):
    wheel, sdist = packages(tmp_path)
    assert checks.contents(ROOT, wheel, sdist) == []
    assert set(checks.wheel_names(wheel)) < set(checks.source_names(sdist))
    config = 'configs/rass/rass_scenes_tiny.py'
    more, less = ['tests/pictures.py', 'rass_mm.png'], [config, 'rass_mm/py.typed']
    faults = checks.contents(ROOT, *packages(tmp_path, more, less))
    assert sum(f'lacks {config}' in fault for fault in faults) == 2
    assert sum('lacks rass_mm/py.typed' in fault for fault in faults) == 2
    assert sum('contains tests/pictures.py' in fault for fault in faults) == 2
    assert sum('contains rass_mm.png' in fault for fault in faults) == 2


def test_commands_of_the_readme_are_those_that_run():
    found = [words[0] for words in readme.commands(ROOT / 'README.md', readme.FULL)]
    assert {'segment', 'restore', 'attention', 'doctor'} <= set(found)
    light = readme.commands(ROOT / 'README.md', readme.LIGHT)
    assert ['segment'] not in [words[:1] for words in light] and len(light) < len(found)
    assert all(ast.parse(block) for block in readme.blocks(ROOT / 'README.md', 'python'))


def test_a_package_without_a_licence_is_reported():
    rows = [{'Name': 'a', 'Version': '1', 'License': 'MIT'}, {'Name': 'b', 'Version': '2', 'License': 'UNKNOWN'}]
    assert reports.undeclared(rows) == ['b 2 states no licence. Look it up and add it to release.reports.STATED.']


def test_locks_name_the_versions_of_this_environment():
    for files, extras in ((['light.txt'], ()), (['full.txt', 'mmcv.txt'], ['all'])):
        pins = [pin for name in files for pin in checks.pins(ROOT / 'requirements' / 'locks' / name)]
        assert sorted(pins) == [found for found in locks.closure(['rass_mm'], extras) if found != locks.PACKAGE]
    whole, small = (checks.pins(ROOT / 'requirements' / 'locks' / name) for name in ('light.txt', 'container.txt'))
    assert 'torch' in whole and not {'torch', 'triton', 'nvidia-cublas'} & set(small) and set(small) < set(whole)
    # In one command with torch, pip would build mmcv before torch is there, without operators and without an error.
    assert list(checks.pins(ROOT / 'requirements' / 'locks' / 'mmcv.txt')) == ['mmcv']


CONTAINER = (ROOT / 'Containerfile').read_text()


def test_the_container_has_no_root_and_pinned_sources():
    stages = CONTAINER.split('\nFROM ')[1:]
    users = [re.search(r'^USER (\S+)', stage, re.MULTILINE) for stage in stages]
    assert users[-1][1] == '1000'
    copied = [PurePosixPath(word) for line in re.findall(r'^COPY (?!--from)(.*) \S+$', CONTAINER, re.MULTILINE)
              for word in line.split()]  # fmt: skip
    assert copied and all((ROOT / path).exists() or path.parts[0] == 'dist' for path in copied)
    assert ':latest' not in CONTAINER and '--require-hashes' in CONTAINER and '--read-only' in CONTAINER
    version = re.search(r'^ARG TORCH=(\S+)', CONTAINER, re.MULTILINE)[1]
    assert version == checks.pins(ROOT / 'requirements' / 'torch.txt')['torch']


def test_the_public_forge_calls_targets_of_the_makefile():
    workflow, makefile = (ROOT / '.github' / 'workflows' / 'ci.yml').read_text(), (ROOT / 'Makefile').read_text()
    targets = re.findall(r'run: make ([\w-]+)', workflow)
    assert {'lint', 'docs', 'test', 'release'} <= set(targets)
    assert all(re.search(rf'^{target}:', makefile, re.MULTILINE) for target in targets)
