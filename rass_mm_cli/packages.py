"""Packages that `rass_mm` depends on: tested versions, and the state of the installed packages.

Versions are read from the metadata of the packages without importing them. `failures` imports each package in a
separate process, because a broken package can terminate the process that imports it.
"""

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rass_mm_cli import extras, families
from rass_mm_cli.remedies import REINSTALL, mmcv_remedy

PROVED = {
    'torch': '2.11.0',
    'torchvision': '0.26.0',
    'mmcv': '2.1.0',
    'mmengine': '0.10.7',
    'mmsegmentation': '1.2.2',
    'mmdet': '3.3.0',
    'mmagic': '1.2.0',
    'diffusers': '0.42.1',
    'peft': '0.21.2',
    'transformers': '5.23.0',
    'accelerate': '1.15.0',
    'safetensors': '0.8.0',
    'numpy': '2.4.6',
    'opencv-python-headless': '5.0.0.93',
    'scipy': '1.17.1',
    'ftfy': '6.3.1',
    'regex': '2026.11.15',
    'pydantic': '2.14.3',
    'filelock': '4.2.11',
    'simplejpeg': '1.9.0',
}
FLOORS = {
    'torch': (
        (2, 10),
        'its weights_only unpickler can corrupt memory (CVE-2026-24747, fixed in 2.10), and below 2.6 it can run code '
        '(CVE-2025-32434), so a checkpoint from an untrusted source can be harmful',
    )
}
"""Lowest safe release of a package, and the reason. `setup.py` requires the same release."""
OPTIONAL = {'mmagic': 'restoration', 'torchvision': 'restoration'}
"""Package that segmentation does not need -> the extra of `rass_mm` that installs it."""
OPERATORS = 'mmcv operators'
"""Name of the row for the compiled operators of mmcv."""
NEEDS = {
    OPERATORS: ('torch', 'mmcv'),
    'torchvision': ('torch',),
    'mmengine': ('torch', 'numpy', 'opencv-python-headless'),
    'mmcv': ('torch', 'mmengine', 'numpy', 'opencv-python-headless'),
    'mmdet': ('mmcv', OPERATORS, 'mmengine', 'torch', 'scipy'),
    'mmsegmentation': ('mmcv', OPERATORS, 'mmengine', 'torch', 'ftfy', 'regex'),
    'mmagic': (
        'mmcv',
        OPERATORS,
        'mmengine',
        'mmsegmentation',
        'mmdet',
        'torch',
        'torchvision',
        'diffusers',
        'transformers',
    ),
    'transformers': ('torch', 'numpy', 'safetensors', 'regex'),
    'accelerate': ('torch', 'numpy', 'safetensors'),
    'diffusers': ('torch', 'transformers', 'accelerate', 'safetensors', 'numpy'),
    'peft': ('torch', 'transformers', 'accelerate', 'safetensors'),
}
"""Package -> packages that are needed to import it.

If one of them cannot be imported, the package itself is not the cause of the fault, see `root_cause`.
"""
MODULES = {'mmsegmentation': 'mmseg', 'opencv-python-headless': 'cv2'}
"""Package -> import name, for packages whose import name differs from the name of the distribution."""
PROBES = {
    'mmsegmentation': 'import mmseg.models',
    'mmdet': 'import mmdet.models',
    'transformers': 'from transformers import CLIPTextModel, CLIPTokenizer',
    'diffusers': 'from diffusers import AutoencoderKL, UNet2DConditionModel',
}
"""Package -> statement that imports the parts used by `rass_mm`, for packages where `import NAME` imports less."""
TIMEOUT = 300


@dataclass(frozen=True)
class PackageReport:
    """One row of `rass-mm doctor`.

    Attributes:
        name: name of the distribution.
        installed: installed version, or None if the package is absent.
        proved: version with which `rass_mm` was tested.
        damaged: whether the metadata of the package exists but its files are missing.
        failure: last line of the import error, or None if the import succeeded or was not tried.
        cause: the required package that causes the failure, or None if there is no such package.
        distribution: name of the fork if the environment has forks and the package has one, otherwise None.
        mixed: whether the package and its fork are both installed.
    """

    name: str
    installed: str | None
    proved: str
    damaged: bool = False
    failure: str | None = None
    cause: str | None = None
    distribution: str | None = None
    mixed: bool = False

    @property
    def title(self) -> str:
        """Name shown in the table, in messages and in commands: that of the installed fork, or else `name`."""
        return self.distribution or self.name

    @property
    def verdict(self) -> str:
        """State of the package in a few words, e.g. 'ok', 'absent' or 'unsafe version'."""
        if self.installed is None and self.name == 'mmagic' and families.has_forks():
            return 'absent (has no fork)'
        if self.installed is None:
            extra = optional().get(self.name)
            return f'absent (only for rass_mm[{extra}])' if extra else 'absent'
        if self.mixed:
            return f'installed beside {families.FORKS[self.name][0]}'
        if self.damaged:
            return 'files missing'
        if self.unsafe:
            return 'unsafe version'
        if self.failure:
            return f'needs {self.cause}' if self.cause else f'fails: {self.failure}'
        # Build tags (+cu130) describe how a wheel was built, not the version of its code.
        return 'ok' if self.installed.split('+')[0] == self.proved else 'untested version'

    @property
    def unsafe(self) -> bool:
        """Whether the installed version is below the lowest safe release."""
        floor = FLOORS.get(self.name)
        return bool(self.installed and floor) and _release(self.installed) < floor[0]

    @property
    def problem(self) -> str | None:
        """Description of the fault, or None if there is nothing to fix."""
        if self.installed is None:
            return None if self.name in optional() else f'{self.title} is absent'
        if self.mixed:
            return (
                f'{self.name} and {families.FORKS[self.name][0]} are both installed, and the files of one have '
                'overwritten those of the other'
            )
        if self.damaged:
            return f'{self.title} {self.installed} is installed, but its files are missing'
        if self.unsafe:
            floor, why = FLOORS[self.name]
            return f'{self.name} {self.installed} is below {".".join(map(str, floor))}: {why}'
        if self.failure and not self.cause and self.name == OPERATORS:
            return f'mmcv has no working operators ({self.failure})'
        if self.failure and not self.cause:
            return f'{self.title} {self.installed} cannot be imported ({self.failure})'
        return None

    @property
    def remedy(self) -> str | None:
        """Shell command that fixes the fault, or None if there is nothing to fix."""
        if self.problem is None:
            return None
        if self.name == 'torch' and self.unsafe:
            # mmcv's operators are compiled for a specific torch version, so a new torch requires compiling them again.
            pair = f'torch=={PROVED["torch"]} torchvision=={PROVED["torchvision"]}'
            return f'pip install {pair} && {mmcv_remedy(PROVED["mmcv"], rebuild=True)}'
        if self.name in ('mmcv', OPERATORS):
            return mmcv_remedy(PROVED['mmcv'], rebuild=self.installed is not None, mixed=self.mixed)
        requirement = f'{self.title}=={self.proved}'
        if self.mixed:
            return f'pip uninstall -y {families.FORKS[self.name][0]} && {REINSTALL} {requirement}'
        if self.installed is None:
            # The forks declare dependencies that replace packages of this environment, such as OpenCV.
            return f'pip install{" --no-deps" if self.distribution else ""} {requirement}'
        return f'{REINSTALL} {requirement}'


def _release(version: str) -> tuple[int, ...]:
    """Parses a version without the package `packaging`, which may be absent: '2.10.0+cu128' becomes (2, 10, 0)."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match[0].split('.')) if match else ()


def optional() -> dict[str, str]:
    """Returns `OPTIONAL`, and in a light installation also the packages of the extra `segmentation`."""
    return OPTIONAL if extras.has_segmentation() else {**dict.fromkeys(families.FORKS, extras.SEGMENTATION), **OPTIONAL}


def installed_version(name: str) -> str | None:
    """Returns the installed version of a package or of its fork, or None if neither is installed.

    For OpenCV, any of its pip packages is accepted.
    """
    names = [name, 'opencv-python', 'opencv-contrib-python'] if name.startswith('opencv') else [name]
    names += [families.FORKS[name][0]] if name in families.FORKS else []
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def package_reports(imports: bool = False) -> list[PackageReport]:
    """Returns a report for each package in `PROVED`, in the same order, and a last one for the operators of mmcv.

    A light installation has no mmcv and therefore no report of its operators.

    Args:
        imports: whether to import each package in a separate process, which takes tens of seconds in total.
    """
    failed = failures() if imports else {}
    forks, mixed = families.has_forks(), families.mixed()
    reports = []
    for name, proved in PROVED.items():
        fork, version = families.FORKS[name] if forks and name in families.FORKS else (None, proved)
        installed = installed_version(name)
        damaged = installed is not None and package_folder(name) is None
        cause = root_cause(name, failed)
        reports.append(
            PackageReport(name, installed, version, damaged, failed.get(name), cause, fork, mixed=name in mixed)
        )
    return [*reports, _operators_report(failed)] if extras.has_segmentation() else reports


def root_cause(name: str, failed: Container[str]) -> str | None:
    """Returns the package that causes the failed import of another package.

    Args:
        name: name of the package that cannot be imported.
        failed: names of all packages that cannot be imported.

    Returns:
        A failed package that `name` needs, directly or indirectly, and that itself needs no failed package. None if all
        packages that `name` needs work.
    """
    need = next((need for need in NEEDS.get(name, ()) if need in failed), None)
    return need and (root_cause(need, failed) or need)


def _operators_report(failed: dict[str, str]) -> PackageReport:
    folder = package_folder('mmcv')
    compiled = folder is not None and any(folder.glob('_ext*'))
    failure = failed.get(OPERATORS) or (None if compiled else 'not compiled')
    cause = root_cause(OPERATORS, failed) or (None if folder else 'mmcv')
    return PackageReport(OPERATORS, 'compiled' if compiled else 'missing', 'compiled', False, failure, cause)


def package_folder(name: str) -> Path | None:
    """Returns the folder of a package without importing the package, or None if it has no folder."""
    try:
        found = importlib.util.find_spec(MODULES.get(name, name))
    except (ImportError, ValueError):
        return None
    if found is None or found.origin is None:  # a failed removal leaves a namespace without `__init__.py`
        return None
    return Path(found.origin).parent


def failures() -> dict[str, str]:
    """Imports each installed package of `PROVED` and mmcv's operators in a process of its own.

    Returns:
        name -> last line of the error, for each package that cannot be imported. Required packages that are absent have
        the value 'absent', because they can be the cause of the other errors.
    """
    names = [name for name in PROVED if installed_version(name)]
    statements = {name: PROBES.get(name, f'import {MODULES.get(name, name)}') for name in names}
    if 'mmcv' in statements:
        statements[OPERATORS] = 'import mmcv.ops'
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = dict(zip(statements, pool.map(_import_error, statements.values()), strict=True))
    absent = {name: 'absent' for name in PROVED if name not in names and name not in optional()}
    return absent | {name: error for name, error in results.items() if error}


def _import_error(statement: str) -> str | None:
    """Runs a statement in a new process. Returns the last line of the error, or None if there is no error."""
    command = [sys.executable, '-W', 'ignore', '-c', statement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors='replace', timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f'not finished after {TIMEOUT} s'
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines()
    return lines[-1].strip() if lines else f'exited with status {done.returncode}'
