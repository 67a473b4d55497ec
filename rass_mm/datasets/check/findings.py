"""Statistics and problems of the files in a data set."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rass_mm.datasets.check.hints import shift_hints, unlearnable
from rass_mm.datasets.check.listing import LabelRules, Listing
from rass_mm.datasets.check.reading import Reading, Size
from rass_mm.datasets.loading import UPRIGHT
from rass_mm.files.orientation import QUARTER_TURNS, turn_label


@dataclass
class DataReport:
    """Results of checking one data set.

    Sizes are (width, height). Shares are fractions of all counted label pixels, from 0 to 1.

    Args:
        name: name of the split, e.g. 'train', or 'train[0]' for a data set inside a wrapper.
        data: type, root and prefixes of the data set; if it has labels, also their folder and `reduce_zero_label`.
        error: reason why the data set cannot be listed, or None.
        images: number of images.
        pairs: number of images that have a label or a clean image.
        checked: number of images that were read, which is smaller than `images` if a limit is set.
        without_partner: images without a label or a clean image.
        without_image: labels or clean images without an image.
        unreadable: for each unreadable file, a dict with `file` and `reason`.
        mismatches: for each pair of different sizes, a dict with `image`, `image_size`, `partner` and `partner_size`.
        turned: for each label that may not match the EXIF orientation of its image, a dict with `image`, `partner` and
            `reason`.
        lossy: for each label file in a lossy format, a dict with `file` and `reason`. Its pixels are not counted.
        faults: messages about problems of the labels as a whole.
        width: smallest and largest image width, or None if no image was read.
        height: smallest and largest image height, or None if no image was read.
        classes: for each class, a dict with `id`, `name`, `pixels`, `share` and `images` (number of images with it).
        never: names of the classes that never occur.
        ignored: a dict with `pixels` and `share` of the ignored pixels, or None if no labels were read.
        raw_ids: number of pixels by label id, as in the files.
        out_of_range: for each invalid label id, a dict with `id` (as in the files), `pixels` and `files`.
        conflicts: messages about contradictions between the data set and the model, such as different class names, and
            about settings with which a model cannot learn.
        hints: messages about possible problems.
        same_as: name of an earlier split with the same data set, or None.
    """

    name: str
    data: dict[str, Any]
    error: str | None = None
    images: int = 0
    pairs: int = 0
    checked: int = 0
    without_partner: list[str] = field(default_factory=list)
    without_image: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)
    mismatches: list[dict[str, Any]] = field(default_factory=list)
    turned: list[dict[str, str]] = field(default_factory=list)
    lossy: list[dict[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    width: Size | None = None
    height: Size | None = None
    classes: list[dict[str, Any]] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    ignored: dict[str, Any] | None = None
    raw_ids: dict[int, int] = field(default_factory=dict)
    out_of_range: list[dict[str, Any]] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    same_as: str | None = None

    @property
    def problems(self) -> int:
        """Number of problems to fix. Hints and classes that never occur are not counted."""
        missing, files = (self.without_partner, self.without_image), (self.unreadable, self.mismatches, self.turned)
        lists = (*missing, *files, self.lossy, self.out_of_range, self.faults, self.conflicts)
        return sum(map(len, lists)) + (self.error is not None)

    def as_dict(self) -> dict[str, Any]:
        """Returns a dict of all fields and of `problems`, which can be written as JSON."""
        return {**dataclasses.asdict(self), 'problems': self.problems}


def report_on(name: str, data: dict[str, Any], listing: Listing, readings: Iterable[Reading]) -> DataReport:
    """Summarizes the contents of the files of a data set in a report.

    Args:
        name: name of the split.
        data: description of the data set, see `DataReport`.
        listing: files of the data set.
        readings: contents of all or some of the samples, in any order.
    """
    pairs = len(listing.samples) - len(listing.without_partner)
    missing = sorted(listing.without_partner), sorted(listing.without_image)
    report = DataReport(name, data, None, len(listing.samples), pairs, 0, *missing, hints=list(listing.hints))
    pixels, images, files = Counter(), Counter(), defaultdict(list)
    for reading in sorted(readings, key=lambda reading: reading.sample.image):
        report.checked += 1
        report.unreadable += [{'file': path, 'reason': reason} for path, reason in reading.faults.items()]
        turned = _turned(reading, listing.rules)
        report.turned += turned
        report.mismatches += [] if turned else _mismatches(reading, listing.enlarged, listing.rules)
        if reading.lossy:
            report.lossy.append({'file': reading.sample.label, 'reason': reading.lossy})
        if size := reading.sizes.get(reading.sample.image):
            report.width, report.height = (
                (min(side, *(known or ())), max(side, *(known or ()))) if known else (side, side)
                for side, known in zip(size, (report.width, report.height), strict=True)
            )
        pixels.update(reading.pixels)
        images.update(reading.pixels.keys())
        for raw in reading.pixels:
            if listing.rules and not listing.rules.valid(raw):
                files[raw].append(reading.sample.label)
    report.raw_ids = dict(sorted(pixels.items()))
    if listing.rules and pixels:
        report.out_of_range = [{'id': raw, 'pixels': pixels[raw], 'files': files[raw]} for raw in sorted(files)]
        _count_classes(report, listing.rules, images)
        report.hints += shift_hints(report.raw_ids, listing.rules)
        # Some of the files do not show that a class never occurs.
        whole = report.checked == report.images
        (report.faults if whole else report.hints).extend(unlearnable(report.raw_ids, listing.rules))
    return report


def _turned(reading: Reading, rules: LabelRules | None) -> list[dict[str, str]]:
    """Returns the entries of a sample for `DataReport.turned`: one if its label may not match its image, else none."""
    sample = reading.sample
    size, label = (reading.sizes.get(path) for path in (sample.image, sample.label))
    if rules is None or size is None or label is None:
        return []
    try:
        turn_label(reading.orientation, size[::-1], label[::-1], rules.drawn_on)
    except ValueError as error:
        return [{'image': sample.image, 'partner': sample.label, 'reason': f'{error}. {UPRIGHT}'}]
    return []


def _mismatches(reading: Reading, enlarged: bool, rules: LabelRules | None) -> Iterator[dict[str, Any]]:
    """Yields an entry of `DataReport.mismatches` for each label or clean image whose size differs from its image.

    If `enlarged` is set, a larger clean image is not reported.
    """
    sample = reading.sample
    size = reading.sizes.get(sample.image)
    stored = rules is not None and rules.drawn_on == 'stored' and reading.orientation in QUARTER_TURNS
    for partner in (sample.label, sample.clean):
        other = reading.sizes.get(partner)
        if size is None or other is None or size == (other[::-1] if stored and partner == sample.label else other):
            continue
        if partner == sample.clean and enlarged and size[0] <= other[0] and size[1] <= other[1]:
            continue
        yield {'image': sample.image, 'image_size': size, 'partner': partner, 'partner_size': other}


def _count_classes(report: DataReport, rules: LabelRules, images: Counter[int]) -> None:
    """Sets `classes`, `ignored` and `never` of a report. Several ids in the files may belong to one class."""
    total = sum(report.raw_ids.values())
    by_class, in_images = Counter(), Counter()
    for raw, count in report.raw_ids.items():
        by_class[rules.class_of(raw)] += count
        in_images[rules.class_of(raw)] += images[raw]
    ignored = by_class.pop(None, 0)
    report.ignored = {'pixels': ignored, 'share': ignored / total}
    number = rules.num_classes or max(by_class, default=-1) + 1
    for k in range(number):
        name = rules.classes[k] if k < len(rules.classes) else str(k)
        row = {'id': k, 'name': name, 'pixels': by_class[k], 'share': by_class[k] / total, 'images': in_images[k]}
        report.classes.append(row)
        if not by_class[k]:
            report.never.append(name)
