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
    """Results of the check of one data set.

    Sizes are (width, height). Shares are fractions of all counted label pixels, from 0 to 1.

    Args:
        name: split of the config, with an index inside wrappers.
        data: type, root and prefixes of the data set; with labels, also their folder and `reduce_zero_label`.
        error: reason why the data set cannot be listed, or None.
        images: number of images.
        pairs: number of images that have a label or clean image.
        checked: number of images that were read; fewer than `images` if limited.
        without_partner: images without label or clean image.
        without_image: labels or clean images without image.
        unreadable: a dict of `file` and `reason` per file.
        mismatches: a dict of `image`, `image_size`, `partner` and `partner_size` per pair of different sizes.
        turned: a dict of `image`, `partner` and `reason` per image whose EXIF orientation its label may contradict.
        lossy: a dict of `file` and `reason` per label file of a format that changes ids; their pixels do not count.
        faults: faults of the labels as a whole.
        width: smallest and largest image width, or None.
        height: smallest and largest image height, or None.
        classes: a dict of `id`, `name`, `pixels`, `share` and `images` (number of images with the class) per class.
        never: names of classes that never occur.
        ignored: `pixels` and `share` of ignored pixels.
        raw_ids: label id as in the files -> pixels.
        out_of_range: a dict of `id` (as in the file), `pixels` and `files` per id.
        conflicts: contradictions between the data set and the model, such as other class names.
        hints: possible faults.
        same_as: split with an identical data set, or None.
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
        """Number of files, ids, faults and conflicts to fix; hints and classes that never occur do not count."""
        missing, files = (self.without_partner, self.without_image), (self.unreadable, self.mismatches, self.turned)
        lists = (*missing, *files, self.lossy, self.out_of_range, self.faults, self.conflicts)
        return sum(map(len, lists)) + (self.error is not None)

    def as_dict(self) -> dict[str, Any]:
        """Returns all fields and `problems`, for JSON."""
        return {**dataclasses.asdict(self), 'problems': self.problems}


def report_on(name: str, data: dict[str, Any], listing: Listing, readings: Iterable[Reading]) -> DataReport:
    """Summarizes readings in a report.

    Args:
        name: name of the split.
        data: description of the data set, see `DataReport`.
        listing: files of the data set.
        readings: readings of all or some of its samples, in any order.
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
    """Returns the reason why the label of a turned image may not match it; empty if it does."""
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
    """Yields partners that differ in size from the image; a clean image may be larger if `enlarged`."""
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
    """Sets the class rows, the ignored share and the classes that never occur; a class may have several ids."""
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
