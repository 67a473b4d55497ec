"""Writes tables with the class shares of all images of a folder, as CSV and JSON."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rass_mm.files.atomic import write_bytes, write_text

CSV, JSON = 'shares.csv', 'shares.json'
CLASSES = 'classes'
"""Name of the note of a shard with the class names, see `rass_mm.jobs.part`."""


def write_shares(out: Path, lines: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> None:
    """Writes `shares.csv` and `shares.json` to the output folder.

    The CSV file has one row per image and one column per class. The JSON file lists only the classes that are present
    in an image. Shares are fractions of the pixels of an image.

    Args:
        out: the output folder.
        lines: manifest lines with `image`, `width`, `height` and `pixels`, the number of pixels by class id.
        classes: class names by id.
    """
    ordered = sorted(lines, key=lambda line: line['image'])
    rows = [_row(line, len(classes)) for line in ordered]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerows([['image', 'width', 'height', *classes], *rows])
    # File names can be any bytes. Those that are not UTF-8 are escaped as in the JSON file.
    write_bytes(out / CSV, buffer.getvalue().encode('utf-8', 'backslashreplace'))
    images = {line['image']: _entry(line, classes) for line in ordered}
    write_text(out / JSON, json.dumps({'classes': list(classes), 'images': images}, indent=1))


def write_merged_shares(out: Path, lines: Iterable[Mapping[str, Any]], notes: Mapping[str, Any]) -> None:
    """Writes the tables of a job whose shards are merged. Does nothing if its shards recorded no class names."""
    if CLASSES in notes:
        write_shares(out, lines, notes[CLASSES])


def has_shares(out: Path) -> bool:
    """Returns whether both tables exist in the output folder."""
    return (out / CSV).is_file() and (out / JSON).is_file()


def _row(line: Mapping[str, Any], count: int) -> list[Any]:
    total = line['width'] * line['height']
    pixels = {int(label): number for label, number in line['pixels'].items()}
    return [line['image'], line['width'], line['height'], *(f'{pixels.get(i, 0) / total:.6g}' for i in range(count))]


def _entry(line: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Any]:
    total = line['width'] * line['height']
    pixels = {int(label): number for label, number in line['pixels'].items() if int(label) < len(classes)}
    present = sorted(((number, label) for label, number in pixels.items()), key=lambda item: -item[0])
    shares = [{'id': label, 'class': classes[label], 'share': round(number / total, 6)} for number, label in present]
    return {'width': line['width'], 'height': line['height'], 'shares': shares}
