"""Results for a folder of uploads, as one zip file."""

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rass_mm.app.messages import message_of
from rass_mm.app.service import Service
from rass_mm.errors import ConfigError
from rass_mm.inference.shares import write_shares

RESTORED, LABELS, OVERLAYS = 'restored', 'labels', 'overlays'
OUTPUTS = (RESTORED, LABELS, OVERLAYS)
FAILED = 'failed.txt'

Watch = Callable[[int, int, str], None]
"""Function that is called with the number of finished images, the number of images and the name of the next."""


@dataclass
class FolderResult:
    """Results of a folder.

    Attributes:
        archive: the zip file.
        finished: names of the images that are finished.
        failed: name -> error message of the other images.
    """

    archive: Path
    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def possible_outputs(service: Service) -> list[str]:
    """Returns the kinds of outputs that the models of the app can compute."""
    found = [RESTORED] if service.models.restorer else []
    return [*found, *([LABELS, OVERLAYS] if service.models.segmentor else [])]


def process_folder(
    service: Service, paths: Sequence[str], outputs: Sequence[str], watch: Watch | None = None
) -> FolderResult:
    """Processes uploads and writes a zip file with folders like those of `rass-mm restore` and `rass-mm segment`.

    An image that cannot be used, or that fails in any other way, is listed in `failed.txt`; the others are processed.

    Args:
        service: the functions of the app.
        paths: the uploaded files.
        outputs: kinds of outputs, see `possible_outputs`.
        watch: see `Watch`, or None.

    Raises:
        ConfigError: an output is not possible, or none is chosen.
        DataError: the number of files is 0 or too large.
    """
    _check(service, outputs)
    service.limits.check_count(len(paths))
    with service.workspace.used([Path(path) for path in paths]):
        return _archived(service, paths, outputs, watch)


def _archived(service: Service, paths: Sequence[str], outputs: Sequence[str], watch: Watch | None) -> FolderResult:
    result = FolderResult(service.workspace.new('rass-mm', '.zip'))
    folder = Path(tempfile.mkdtemp(dir=result.archive.parent))
    lines = []
    try:
        for index, (path, name) in enumerate(zip(map(Path, paths), _names(paths), strict=True)):
            if watch:
                watch(index, len(paths), path.name)
            try:
                lines += _processed(service, path, name, outputs, folder)
                result.finished.append(name + path.suffix)
            except Exception as error:
                result.failed[name + path.suffix] = message_of(error)
        if lines:
            write_shares(folder, lines, service.models.segmentor.classes)
        if result.failed:
            text = ''.join(f'{name}\n    {reason}\n' for name, reason in result.failed.items())
            (folder / FAILED).write_text(text, encoding='utf-8')
        _write_archive(result.archive, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _check(service: Service, outputs: Sequence[str]) -> None:
    possible = possible_outputs(service)
    wrong = [name for name in outputs if name not in possible]
    if wrong or not outputs:
        found = f'{wrong[0]!r} is not possible' if wrong else 'No output is chosen'
        raise ConfigError(f'{found}. Choose from: {", ".join(possible)}.')


def _names(paths: Sequence[str]) -> list[str]:
    """Returns names of the outputs without suffix. Equal names get a number."""
    names: list[str] = []
    for stem in (Path(path).stem for path in paths):
        name, number = stem, 1
        while name in names:
            number += 1
            name = f'{stem}_{number}'
        names.append(name)
    return names


def _processed(service: Service, path: Path, name: str, outputs: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Writes the outputs of one image. Returns its line for the table of shares, in a list, or an empty list."""
    made, lines = [], []
    if RESTORED in outputs:
        made.append((RESTORED, service.restore(path)[0]))
    if LABELS in outputs or OVERLAYS in outputs:
        found = service.segment(path)
        made += [(LABELS, service.labels(path, found))] * (LABELS in outputs)
        made += [(OVERLAYS, service.overlay(path, found))] * (OVERLAYS in outputs)
        height, width = found.labels.shape
        lines = [{'image': name + path.suffix, 'width': width, 'height': height, 'pixels': found.counts}]
    for kind, file in made:
        (folder / kind).mkdir(exist_ok=True)
        file.replace(folder / kind / f'{name}.png')
    return lines


def _write_archive(target: Path, folder: Path) -> None:
    """Moves the files of a folder to a zip file."""
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as archive:  # PNG files are compressed already
        for file in sorted(folder.rglob('*')):
            if file.is_file():
                archive.write(file, file.relative_to(folder))
                file.unlink()
