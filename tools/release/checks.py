"""Checks of the sources of a release and of the built packages. Each function returns faults, as sentences."""

import hashlib
import re
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

APACHE = 'cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30'
"""SHA-256 of the text of the Apache License 2.0, as its publisher distributes it."""
KNOWN = {'Apache-2.0': 'LICENSE'}
"""SPDX identifier of a licence of packaged files -> file with its text."""
MOST_BYTES = 20 * 10**6
LISTED = 'licences.toml'
PACKAGES = ('rass_mm', 'rass_mm_cli')
SOURCES = ('README.md', 'CHANGELOG.md', 'MANIFEST.in', 'pyproject.toml', 'setup.py', LISTED)
"""Files of the source package beside the packages, the configs and the licence."""
MADE = ('PKG-INFO', 'setup.cfg')
"""Files that the build adds to the source package."""
PIN = re.compile(r'([A-Za-z0-9][\w.-]*)==([\w.+!-]+)')
HASH = re.compile(r'--hash=sha256:[0-9a-f]{64}$')


def licence_text(root: Path) -> list[str]:
    """Returns a fault if LICENSE is not the unchanged text of the Apache License 2.0."""
    file = root / 'LICENSE'
    if not file.is_file():
        return ['LICENSE is missing.']
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    return [] if found == APACHE else [f'LICENSE is not the text of the Apache License 2.0 (its SHA-256 is {found}).']


def version_of(root: Path) -> str:
    """Returns the version, which is written in `rass_mm/version.py` only."""
    return re.search(r"__version__ = '(.+)'", (root / 'rass_mm' / 'version.py').read_text())[1]


def changelog(root: Path) -> list[str]:
    """Returns a fault if CHANGELOG.md has no entry for this version.

    The entries are below the heading of the version, or below 'Unreleased' until the version is released.
    """
    version, titles = version_of(root), {}
    for section in re.split(r'^## ', (root / 'CHANGELOG.md').read_text(encoding='utf-8'), flags=re.MULTILINE)[1:]:
        title, _, text = section.partition('\n')
        titles[title.strip().partition(' ')[0]] = re.findall(r'^\* \S', text, re.MULTILINE)
    if titles.get(version) or titles.get('Unreleased'):
        return []
    return [f'CHANGELOG.md has no entry: add one below the heading "## {version}" or "## Unreleased".']


def citation(root: Path) -> list[str]:
    """Returns a fault if CITATION.cff has another version."""
    found = re.search(r'^version: (\S+)$', (root / 'CITATION.cff').read_text(), re.MULTILINE)
    same = found and found[1] == version_of(root)
    return [] if same else [f'CITATION.cff has not the version {version_of(root)} of rass_mm/version.py.']


def lock(file: Path) -> list[str]:
    """Returns a fault for each line of a lock file that names no exact version or has no SHA-256."""
    faults = []
    lines = file.read_text().replace('\\\n', ' ').splitlines()
    wanted = [line.split('#')[0].strip() for line in lines if line.split('#')[0].strip()]
    if not wanted:
        return [f'{file.name} names no package.']
    for line in wanted:
        name, *hashes = re.split(r'\s+(?=--hash)', line)
        if not PIN.match(name):
            faults.append(f'{file.name}: {name} has no exact version. Write the file again with make locks.')
        if not hashes or not all(map(HASH.match, hashes)):
            faults.append(f'{file.name}: {name} has no SHA-256. Write the file again with make locks.')
    return faults


def pins(file: Path) -> dict[str, str]:
    """Returns the versions in a lock file or a list of requirements, by normalized name."""
    found = PIN.findall(re.sub(r'--hash=\S+', '', file.read_text()))
    return {re.sub(r'[-_.]+', '-', name).lower(): version for name, version in found}


def tested(file: Path, lists: list[Path]) -> list[str]:
    """Returns a fault for each version in a lock file that is not the one of the development environment's lists."""
    wanted = {name: version for part in lists for name, version in pins(part).items()}
    return [
        f'{file.name}: {name} is {version}, but the tests run with {wanted[name]}. Run make locks.'
        for name, version in pins(file).items()
        if name in wanted and wanted[name] != version
    ]


def licences(root: Path, names: list[str]) -> list[str]:
    """Returns a fault for each file without a licence, and for each pattern of the list that matches none.

    Args:
        root: the checkout, whose `licences.toml` lists patterns of files, their licence and their origin.
        names: paths of the packaged files relative to the checkout.
    """
    entries = tomllib.loads((root / LISTED).read_text(encoding='utf-8'))['files']
    faults, used = [], set()
    for name in names:
        found = [(entry, pattern) for entry in entries for pattern in entry['paths'] if fnmatchcase(name, pattern)]
        used |= {pattern for _, pattern in found}
        if not found:
            faults.append(f'{name} has no licence: add it to {LISTED}, with its licence and its origin.')
        for entry, _ in found:
            if entry.get('licence') not in KNOWN:
                faults.append(
                    f'{name} has the licence {entry.get("licence")!r}, whose text is not part of the project.'
                )
            if not entry.get('origin'):
                faults.append(f'{name} has no origin in {LISTED}.')
    stale = [pattern for entry in entries for pattern in entry['paths'] if pattern not in used]
    return faults + [f'{LISTED}: {pattern} matches no packaged file. Remove it.' for pattern in stale]


def size(package: Path) -> list[str]:
    """Returns a fault if a package is larger than `MOST_BYTES`."""
    found = package.stat().st_size
    if found <= MOST_BYTES:
        return []
    return [f'{package.name} has {found / 1e6:.1f} MB, but at most {MOST_BYTES / 1e6:.0f} MB are allowed.']


def wheel_names(wheel: Path) -> list[str]:
    """Returns the paths of the files of a wheel as in the checkout, without the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if '.dist-info/' not in name]
    return [name.removeprefix('rass_mm/') if name.startswith('rass_mm/configs/') else name for name in names]


def source_names(sdist: Path) -> list[str]:
    """Returns the paths of the files of a source package as in the checkout, without those that the build adds."""
    with tarfile.open(sdist) as archive:
        names = [PurePosixPath(member.name) for member in archive.getmembers() if member.isfile()]
    inner = [PurePosixPath(*name.parts[1:]) for name in names]
    return [str(name) for name in inner if str(name) not in MADE and 'rass_mm.egg-info' not in name.parts]


def contents(root: Path, wheel: Path, sdist: Path) -> list[str]:
    """Returns faults of the packages' contents: files that are missing, and files that do not belong there."""
    modules = {file.relative_to(root).as_posix() for name in PACKAGES for file in (root / name).rglob('*.py')}
    configs = {file.relative_to(root).as_posix() for file in (root / 'configs').rglob('*.py')}
    needed = {*modules, *configs, 'rass_mm/py.typed'}
    faults = []
    for package, names in ((wheel, wheel_names(wheel)), (sdist, source_names(sdist))):
        faults += [f'{package.name} lacks {name}.' for name in sorted(needed - set(names))]
        allowed = (*PACKAGES, 'configs') if package is wheel else (*PACKAGES, 'configs', 'LICENSE', *SOURCES)
        others = sorted(name for name in names if PurePosixPath(name).parts[0] not in allowed)
        faults += [f'{package.name} contains {name}, which does not belong there.' for name in others]
    with zipfile.ZipFile(wheel) as archive:
        texts = [name for name in archive.namelist() if '.dist-info/' in name and name.endswith('/LICENSE')]
        hashes = {hashlib.sha256(archive.read(name)).hexdigest() for name in texts}
    return faults if hashes == {APACHE} else [*faults, f'{wheel.name} does not contain LICENSE.']
