"""`make release`: builds, checks, installs and describes a release. It writes dist/ and dist/reports/.

By default: sources, packages, container file, a light environment with nothing but the wheel and the newest versions of
what it needs, then the source package in its place, and the wheel and the source package on top of the tested versions
of the development environment. With --full also: the light lock file, the oldest versions that setup.py allows, and the
full lock file, each in an environment of its own. The last one compiles mmcv (20 minutes on 2 cores, 10 GB).
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release import checks, environments, readme, reports
from release.steps import ReleaseError, call, refuse, say, step, written

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ROOT / 'requirements' / 'locks'
DIST = ROOT / 'dist'
REPORTS = DIST / 'reports'


def main():
    """Runs the steps. Returns 0, or 1 after a fault."""
    parser = argparse.ArgumentParser(prog='make release', description=__doc__.splitlines()[0])
    parser.add_argument('--tools', type=Path, required=True, help='environment of tools/release_env.sh')
    parser.add_argument('--python', default=sys.executable, help='base interpreter of the bare environments')
    parser.add_argument('--torch', default='torch', help='build of torch in bare environments, e.g. torch==2.11.0+cpu')
    parser.add_argument('--full', action='store_true', help='also the lock files and the oldest versions')
    arguments = parser.parse_args()
    figures = {}
    try:
        with tempfile.TemporaryDirectory(prefix='release-') as folder:
            run(arguments, Path(folder), figures)
    except ReleaseError as error:
        say(f'FAILED: {error}')
        return 1
    return 0


def run(arguments, folder, figures):
    """Runs the steps in a temporary folder."""
    with step('sources', figures) as words:
        words.append(f'version {check_sources(ROOT)}')
    wheel, sdist = build(arguments.tools, folder, figures)
    with step('container file', figures):
        call(arguments.tools / 'bin' / 'hadolint', ROOT / 'Containerfile')
    light(arguments, folder, wheel, sdist, figures)
    full(arguments, folder, wheel, sdist, figures)
    if arguments.full:
        locked(arguments, folder, wheel, figures)
        oldest(arguments, folder, wheel, figures)
    sums = [f'{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n' for file in (wheel, sdist)]
    (DIST / 'SHA256SUMS').write_text(''.join(sums))
    written(REPORTS / 'figures.json', figures)
    say(f'ready: {DIST}/{wheel.name}, {sdist.name}, SHA256SUMS; reports in {REPORTS}')


def check_sources(root):
    """Checks the sources and returns the version."""
    faults = [*checks.licence_text(root), *checks.changelog(root), *checks.citation(root)]
    lists = [*(root / 'requirements').glob('*.txt')]
    for name in ('light.txt', 'container.txt', 'full.txt', 'mmcv.txt'):
        file = root / 'requirements' / 'locks' / name
        faults += [*checks.lock(file), *checks.tested(file, lists)] if file.is_file() else [f'{name} is missing.']
    refuse(faults)
    return checks.version_of(root)


def build(tools, folder, figures):
    """Builds the packages from the tracked files and checks them. Returns their paths in dist/."""
    source = folder / 'source'
    with step('build', figures) as words:
        names = subprocess.check_output(['git', 'ls-files', '-z'], cwd=ROOT, text=True).split('\0')
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        shutil.rmtree(DIST, ignore_errors=True)
        REPORTS.mkdir(parents=True)
        call(tools / 'bin' / 'python', '-m', 'build', '--outdir', DIST, source)  # the wheel from the source package
        (wheel,), (sdist,) = DIST.glob('*.whl'), DIST.glob('*.tar.gz')
        words += [f'{file.name} {file.stat().st_size / 1e6:.1f} MB' for file in (wheel, sdist)]
    with step('contents', figures) as words:
        call(tools / 'bin' / 'twine', 'check', '--strict', wheel, sdist)
        names = sorted({*checks.wheel_names(wheel), *checks.source_names(sdist)})
        refuse([*checks.size(wheel), *checks.contents(source, wheel, sdist), *checks.licences(source, names)])
        words.append(f'{len(names)} files with a licence')
    return wheel, sdist


def light(arguments, folder, wheel, sdist, figures):
    """Installs the wheel and then the source package into a bare environment with the newest versions."""
    environment, packages = environments.created(folder / 'light', arguments.python), folder / 'packages'
    with step('light, download', figures) as words:
        pip = [environment / 'bin' / 'python', '-m', 'pip']
        variables = environments.variables(environment)
        call(*pip, 'download', '-q', '-d', packages, arguments.torch, wheel, env=variables)
        words += [f'{len(list(packages.iterdir()))} packages', f'{environments.megabytes(packages)} MB']
    with step('light, wheel', figures) as words:
        environments.install(environment, '--no-index', '--find-links', packages, arguments.torch, wheel)
        words.append(f'{environments.megabytes(environments.site(environment))} MB, no compiler')
    shutil.rmtree(packages)
    check_installed(environment, 'light, README', False, figures)
    describe(arguments.tools, environment, 'light', figures)
    reinstalled(environment, sdist, 'light', figures)
    shutil.rmtree(environment)


def full(arguments, folder, wheel, sdist, figures):
    """Installs the packages on top of the tested versions of the development environment."""
    environment = environments.on_top(folder / 'full', sys.executable)
    with step('full, wheel', figures) as words:
        call(
            sys.executable, '-m', 'pip', '--python', environment / 'bin' / 'python', 'install', '-q', '--no-deps', wheel
        )
        words.append('on the tested versions')
    check_installed(environment, 'full, README', True, figures)
    describe(arguments.tools, environment, 'full', figures)
    shutil.rmtree(environment)


def reinstalled(environment, sdist, name, figures):
    """Replaces the wheel by the source package, and compares the installed files."""
    with step(f'{name}, source package', figures) as words:
        before = installed_files(environment)
        environments.install(environment, '--no-deps', '--force-reinstall', sdist)
        after = installed_files(environment)
        refuse(
            [f'The source package installs other files than the wheel: {sorted(before ^ after)[:5]}']
            * (before != after)
        )
        environments.rass_mm(environment, 'doctor')
        words.append(f'{len(after)} files, as the wheel')


def installed_files(environment):
    """Returns the installed files of the package."""
    folder = environments.site(environment)
    found = (file for name in checks.PACKAGES for file in (folder / name).rglob('*'))
    return {str(file.relative_to(folder)) for file in found if file.is_file() and file.suffix != '.pyc'}


def check_installed(environment, name, is_full, figures):
    """Runs the commands of the README."""
    with step(name, figures) as words:
        words += readme.run(environment, ROOT / 'README.md', is_full)


def describe(tools, environment, name, figures):
    """Writes the bill of materials and the licence report."""
    with step(f'{name}, reports', figures) as words:
        parts = reports.bill(tools, environment, REPORTS / f'sbom-{name}.json')
        rows = reports.licence_report(tools, environment, REPORTS / f'licences-{name}.md')
        words += [f'{parts} components', f'{rows} licences']


def locked(arguments, folder, wheel, figures):
    """Installs the lock files into bare environments. The full ones need a compiler for mmcv."""
    environment = environments.created(folder / 'locked', arguments.python)
    with step('light lock, wheel', figures):
        environments.install(environment, '--require-hashes', '--no-deps', '-r', LOCKS / 'light.txt')
        environments.install(environment, '--no-deps', wheel)
    check_installed(environment, 'light lock, README', False, figures)
    shutil.rmtree(environment)
    environment = environments.created(folder / 'locked', arguments.python)
    with step('full lock, wheel', figures):
        pip = [environment / 'bin' / 'python', '-m', 'pip', 'install', '-q', '--require-hashes', '--no-deps']
        call(*pip, '-r', LOCKS / 'full.txt')
        # Without optimisation the operators are correct but slow, and compiled in half the time.
        compiled = {'CFLAGS': '-O1 -g0 -w', **os.environ, 'MMCV_WITH_OPS': '1'}
        call(*pip, '--no-build-isolation', '--no-cache-dir', '-r', LOCKS / 'mmcv.txt', env=compiled)
        environments.install(environment, '--no-deps', wheel)
    check_installed(environment, 'full lock, README', True, figures)
    shutil.rmtree(environment)


def oldest(arguments, folder, wheel, figures):
    """Installs the wheel with the oldest versions that setup.py allows."""
    environment = environments.created(folder / 'oldest', arguments.python)
    with step('oldest, wheel', figures) as words:
        uv, python = arguments.tools / 'bin' / 'uv', environment / 'bin' / 'python'
        options = ['--quiet', '--system-certs', '--python', python, '--resolution', 'lowest-direct']
        call(uv, 'pip', 'install', *options, wheel, arguments.torch, env=environments.variables(environment))
        words.append(f'{environments.megabytes(environments.site(environment))} MB')
    check_installed(environment, 'oldest, README', False, figures)
    shutil.rmtree(environment)


if __name__ == '__main__':
    sys.exit(main())
