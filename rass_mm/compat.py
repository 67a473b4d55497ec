"""The only file that knows about version drift of the libraries below us.

Everything here probes for a feature instead of comparing version numbers, and does nothing where the feature is there;
only `FLOORS` compares: a safe reader cannot be told from an unsafe one by looking.
`PROVED` is the set of versions the tests ran on; `rass-mm doctor` prints it beside what is installed.
"""

import importlib
import importlib.metadata
import importlib.util
import pickle
import re
import sys
import types
from dataclasses import dataclass
from typing import Any

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
}
FLOORS = {
    'torch': (
        (2, 10),
        'its weights_only unpickler can corrupt memory (CVE-2026-24747, fixed in 2.10), and below 2.6 it can run code '
        '(CVE-2025-32434): a checkpoint from others may be harmful',
    )
}
"""The lowest release of a package that is safe to use, and why. setup.py asks for the same."""
OPTIONAL = {'mmagic': 'restoration', 'torchvision': 'restoration'}
"""Packages segmentation runs without, and the extra that installs them."""


def prepare() -> None:
    """Makes the segmentation stack of mmengine, mmcv, mmseg and mmdet work on the installed torch and numpy."""
    allow_training_state()
    quiet_loading()


def quiet_loading() -> None:
    """Turns off the progress bars diffusers and transformers draw for every small file; logs stay readable."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def allow_training_state() -> None:
    """Lets `torch.load(weights_only=True)` read what mmengine's checkpoints hold besides tensors.

    mmengine calls `torch.load` without a choice, and torch 2.6 made the safe reader the default. The names below are
    the inert containers of mmengine's message hub; none of them runs code on loading.
    """
    import numpy as np
    import torch
    from mmengine.logging.history_buffer import HistoryBuffer

    core = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray

    def history_method(owner: type, name: str) -> Any:
        # A history buffer pickles its statistics by `getattr(HistoryBuffer, name)`. Allowing the real getattr would let
        # a file reach any attribute of any allowed object; this stand-in gives the public statistics and nothing else.
        if owner is not HistoryBuffer or name.startswith('_'):
            raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
        return getattr(owner, name)

    safe = [HistoryBuffer, core._reconstruct, core.scalar, np.ndarray, np.dtype, (history_method, 'builtins.getattr')]
    safe += [getattr(np.dtypes, f'{name}DType') for name in ('Float64', 'Float32', 'Int64', 'UInt64', 'Bool')]
    torch.serialization.add_safe_globals(safe)


def prepare_mmagic() -> None:
    """Gives mmagic 1.2 the three names it imports that newer numpy and diffusers no longer have.

    Called by the restoration side only, before its first import of mmagic.
    """
    import numpy as np

    if not hasattr(np, 'bool8'):
        np.bool8 = np.bool_
    for old, new in {'diffusers.models.unet_2d_condition': 'diffusers.models.unets.unet_2d_condition'}.items():
        if old not in sys.modules and importlib.util.find_spec(old) is None:
            sys.modules[old] = importlib.import_module(new)
    painter = 'diffusers.pipelines.paint_by_example'
    if painter not in sys.modules and importlib.util.find_spec(painter) is None:
        # mmagic names this encoder in one editing model; a placeholder is enough for the import.
        stub = types.ModuleType(painter)
        stub.PaintByExampleImageEncoder = None
        sys.modules[painter] = stub


@dataclass(frozen=True)
class PackageReport:
    """One row of `rass-mm doctor`: `installed` is None where the package is absent."""

    name: str
    installed: str | None
    proved: str

    @property
    def verdict(self) -> str:
        """'ok', 'untested version', 'unsafe version', 'absent' or 'absent (only for ...)'."""
        if self.installed is None:
            return f'absent (only for rass_mm[{OPTIONAL[self.name]}])' if self.name in OPTIONAL else 'absent'
        if self.unsafe:
            return 'unsafe version'
        # Build tags (+cu130) say how a wheel was made, not which code is in it.
        return 'ok' if self.installed.split('+')[0] == self.proved else 'untested version'

    @property
    def unsafe(self) -> bool:
        """Whether the installed version is below the package's floor."""
        floor = FLOORS.get(self.name)
        return bool(self.installed and floor) and _release(self.installed) < floor[0]

    @property
    def problem(self) -> str | None:
        """The fault of this row; None where nothing has to be done."""
        if self.unsafe:
            floor, why = FLOORS[self.name]
            return f'{self.name} {self.installed} is below {".".join(map(str, floor))}: {why}'
        return f'{self.name} is absent' if self.verdict == 'absent' else None

    @property
    def remedy(self) -> str | None:
        """The command that mends this row; None where nothing has to be done."""
        if self.unsafe:
            return TORCH_REMEDY
        if self.verdict == 'absent':
            return f'pip install {self.name}=={self.proved}' if self.name != 'mmcv' else MMCV_REMEDY
        return None


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version: '2.10.0+cu128' is (2, 10, 0). The doctor also runs where `packaging` is absent."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match[0].split('.')) if match else ()


MMCV_REMEDY = (
    'pip install "setuptools<81" wheel ninja psutil packaging && '
    'MMCV_WITH_OPS=1 pip install --no-cache-dir --no-build-isolation mmcv==2.1.0'
)
REBUILD_MMCV = f'pip uninstall -y mmcv && {MMCV_REMEDY}'
# mmcv's operators are compiled for one torch, so that another torch needs them compiled again.
TORCH_REMEDY = f'pip install torch=={PROVED["torch"]} torchvision=={PROVED["torchvision"]} && {REBUILD_MMCV}'


def installed_version(name: str) -> str | None:
    """Version of a distribution, or None where it is not installed. Either OpenCV build counts as OpenCV."""
    names = [name, 'opencv-python', 'opencv-contrib-python'] if name.startswith('opencv') else [name]
    for candidate in names:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def package_reports() -> list[PackageReport]:
    """One report for each package of `PROVED`, in that order."""
    return [PackageReport(name, installed_version(name), proved) for name, proved in PROVED.items()]


def operators_problem() -> str | None:
    """Why mmcv's compiled operators cannot be used, or None where they can."""
    try:
        importlib.import_module('mmcv.ops')
    except Exception as error:  # a wrong torch shows as ImportError, OSError or an undefined symbol
        return f'{type(error).__name__}: {error}'
    return None
