"""Writes the lock files: the versions with which the tests run, with the hashes of all files of each release.

    make locks

`light.txt` has what `pip install rass_mm` brings, `container.txt` the same without torch and its libraries, which have
builds for CPUs and cards, and `full.txt` what `pip install rass_mm[all]` brings, as far as the development environment
has it: without a second OpenCV, see requirements/lock.txt. mmcv is in `mmcv.txt`, because its operators are compiled
against the torch that is installed: in one command, pip would build it before torch is there, without operators.
"""

import importlib.metadata
import os
import re
import sys
from pathlib import Path

from packaging.requirements import Requirement

from release.steps import call

PACKAGE = 'rass-mm'
LINUX = re.compile(r'(nvidia|cuda)-|triton$')
VARIANT = re.compile(rf'torch==|{LINUX.pattern.replace("$", "==")}')
"""Packages that torch needs on Linux only."""
COMPILED = 'mmcv=='
HEADER = '# {kind}: the tested versions with the hashes of their files, written by make locks.\n# {how}\n'
INSTALL = 'pip install --require-hashes --no-deps -r requirements/locks/{name}'
MMCV = f'MMCV_WITH_OPS=1 {INSTALL.format(name="mmcv.txt")} --no-build-isolation --no-cache-dir'
LAST = 'pip install --no-deps rass_mm'
HOW = {
    'light.txt': f'{INSTALL} && {LAST}',
    'container.txt': f'{INSTALL} && {LAST}',
    'full.txt': f'{INSTALL}, then mmcv.txt, then {LAST}',
    'mmcv.txt': f'After full.txt, with a C++ compiler: {MMCV}',
}
"""Lock file -> how it is installed."""


def normalized(name):
    """Returns the name of a distribution in lower case with hyphens."""
    return re.sub(r'[-_.]+', '-', name).lower()


def closure(names, extras=()):
    """Returns the normalized names of the installed distributions that `names` need, themselves included.

    Args:
        names: names of distributions. Those that are not installed are left out.
        extras: extras of rass_mm.
    """
    found, pending = {}, [(name, frozenset(extras if normalized(name) == PACKAGE else ())) for name in names]
    while pending:
        name, chosen = pending.pop()
        key = normalized(name)
        if key in found and chosen <= found[key]:
            continue
        try:
            needed = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue
        found[key] = found.get(key, frozenset()) | chosen
        for one in map(Requirement, needed):
            if one.marker is None or any(one.marker.evaluate({'extra': extra}) for extra in ('', *found[key])):
                pending.append((one.name, frozenset(one.extras)))
    return sorted(found)


def pinned(extras=()):
    """Returns a requirement with the installed version of each package that rass_mm with these extras needs."""
    lines = []
    for name in closure([PACKAGE], extras):
        if name != PACKAGE:
            marker = ' ; sys_platform == "linux"' if LINUX.match(name) else ''
            lines.append(f'{name}=={importlib.metadata.version(name)}{marker}')
    return lines


def write(tools, folder, name, kind, lines):
    """Writes a lock file of pinned requirements."""
    environment = {**os.environ, 'UV_SYSTEM_CERTS': 'true', 'UV_NATIVE_TLS': 'true'}
    options = [
        '--quiet',
        '--no-deps',
        '--generate-hashes',
        '--python-version',
        '3.11',
        '--no-header',
        '--no-annotate',
        '--universal',
    ]
    text = call(tools / 'bin' / 'uv', 'pip', 'compile', *options, '-', stdin='\n'.join(lines), env=environment)
    header = HEADER.format(kind=kind, how=HOW[name].format(name=name))
    (folder / name).write_text(header + text, encoding='utf-8')


if __name__ == '__main__':
    programs, target = Path(sys.argv[1]), Path('requirements/locks')
    write(programs, target, 'light.txt', 'Light installation', pinned())
    write(
        programs, target, 'container.txt', 'Light installation', [line for line in pinned() if not VARIANT.match(line)]
    )
    everything = pinned(['all'])
    whole = [line for line in everything if not line.startswith(COMPILED)]
    write(programs, target, 'full.txt', 'Full installation without mmcv', whole)
    write(programs, target, 'mmcv.txt', 'mmcv with its operators', [line for line in everything if line not in whole])
