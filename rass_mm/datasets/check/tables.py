"""Terminal output of a data report: summary, problems and classes."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from rass_mm.datasets.check.findings import DataReport

LISTED = 10
CLASSES = 30
"""Maximum number of class rows. If more classes occur, the most frequent and the rarest ones are shown."""


def print_report(report: DataReport, console: Console) -> None:
    """Prints a report. Lists are limited to `LISTED` entries and the class table to `CLASSES` rows."""

    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    line(f'\n{report.name}: {report.data.get("type")} in {report.data.get("data_root") or "."}')
    if 'labels' in report.data:
        line(f'  labels: {report.data["labels"]}, reduce_zero_label={report.data["reduce_zero_label"]}')
    if report.same_as:
        line(f'  the same data set as {report.same_as}')
        return
    if report.error:
        line(f'  {report.error}')
    else:
        console.print(_summary(report))
    for title, entries in _lists(report):
        entries = list(entries)
        if entries:
            line(f'{title} ({len(entries)}):')
            for entry in entries[:LISTED]:
                line(f'  {entry}')
            if len(entries) > LISTED:
                line(f'  ... and {len(entries) - LISTED} more. Pass --json FILE to write all of them.')
    if report.classes:
        console.print(_class_table(report))
    if report.never:
        line(f'Classes that never occur ({len(report.never)}): {", ".join(report.never)}')
    for hint in report.hints:
        line(f'Hint: {hint}')


def _summary(report: DataReport) -> Table:
    table = Table(show_header=False)
    rows = {'images': report.images, 'with label or clean image': report.pairs, 'read': report.checked}
    if report.width and report.height:
        (narrow, wide), (low, high) = report.width, report.height
        rows['width x height'] = f'{narrow} to {wide} x {low} to {high}'
    if report.ignored:
        rows['ignored pixels (%)'] = _percent(report.ignored['share'])
    rows['problems'] = report.problems
    for key, value in rows.items():
        table.add_row(key, str(value))
    return table


def _lists(report: DataReport) -> Iterable[tuple[str, Iterable[str]]]:
    yield 'Images without label or clean image', report.without_partner
    yield 'Labels or clean images without image', report.without_image
    yield 'Unreadable files', (f'{entry["file"]}: {entry["reason"]}' for entry in report.unreadable)
    yield 'Different sizes, width x height', map(_mismatch, report.mismatches)
    yield 'EXIF orientation and label', (f'{entry["partner"]}: {entry["reason"]}' for entry in report.turned)
    yield 'Lossy label formats', (f'{entry["file"]}: {entry["reason"]}' for entry in report.lossy)
    yield 'Labels as a whole', report.faults
    yield 'Label ids out of range', map(_out_of_range, report.out_of_range)
    yield 'Conflicts with the model', report.conflicts


def _mismatch(entry: dict[str, Any]) -> str:
    sizes = ('x'.join(map(str, entry[key])) for key in ('image_size', 'partner_size'))
    return '{} is {}, {} is {}'.format(entry['image'], next(sizes), entry['partner'], next(sizes))


def _out_of_range(entry: dict[str, Any]) -> str:
    files = entry['files']
    more = f' and {len(files) - 1} more' if len(files) > 1 else ''
    return f'{entry["id"]}: {entry["pixels"]} pixels in {files[0]}{more}'


def _class_table(report: DataReport) -> Table:
    table = Table()
    for title in ('id', 'class', 'pixels (%)', 'images'):
        table.add_column(title, justify='left' if title == 'class' else 'right')
    rows, cut = report.classes, len(report.classes) > CLASSES
    if cut:
        rows = sorted((row for row in rows if row['pixels']), key=lambda row: -row['pixels'])
    left_out = len(rows) - CLASSES if cut else 0
    for number, row in enumerate(rows):
        if left_out > 0 and CLASSES // 2 <= number < CLASSES // 2 + left_out:
            if number == CLASSES // 2:
                table.add_row('...', f'{left_out} classes between', '', '')
            continue
        table.add_row(str(row['id']), row['name'], _percent(row['share']), str(row['images']))
    return table


def _percent(share: float) -> str:
    return f'{100 * share:.2f}' if share >= 1e-4 or not share else f'{100 * share:.1g}'
