"""The two layouts of RealLQ's labels, and their detection in a folder."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log

from rass_mm.errors import DataError
from rass_mm.files.walking import walk

IMAGES = 'images/validation'


@dataclass(frozen=True)
class LabelLayout:
    """Location of the label files and meaning of their ids.

    Args:
        prefix: label folder, relative to the data root.
        reduce_zero_label: whether id 0 is ignored and id k is class k - 1.
        ids: description of the ids.
    """

    prefix: str
    reduce_zero_label: bool
    ids: str

    @property
    def folder(self) -> str:
        """First part of `prefix`, which identifies the layout."""
        return self.prefix.partition('/')[0]


LAYOUTS = (
    LabelLayout('annotations_detectron2/validation', False, 'ids 0 to 149, 255 ignored'),
    LabelLayout('annotations/validation', True, 'ids 1 to 150, 0 ignored'),
)
"""Known layouts. The first one, which the released code reads, is preferred if both have equally many labels."""


def layouts_in(root: str | Path | None, suffix: str = '.png') -> list[LabelLayout]:
    """Returns the layouts that have label files below `root`, sorted by their number of files, largest first.

    Raises:
        DataError: no layout has label files.
    """
    root = Path(root or '')
    counts = {layout: _label_files(root / layout.prefix, suffix) for layout in LAYOUTS}
    if any(counts.values()):
        # A partially copied folder must not be preferred to a complete one.
        return sorted((layout for layout in LAYOUTS if counts[layout]), key=lambda layout: -counts[layout])
    states = {layout: _state(root / layout.prefix, suffix) for layout in LAYOUTS}
    places = ''.join(f'  {root / layout.prefix} ({layout.ids}): {state}\n' for layout, state in states.items())
    raise DataError(
        f'No labels of RealLQ were found. The searched folders are\n{places}'
        f'Images are {root / IMAGES}/*.jpg; labels have the same names and end in {suffix}. Put the labels into the '
        f'folder that matches their ids, or set data_root to the folder ADEChallengeData2016 of the archive. '
        f'For labels elsewhere, set data_prefix.seg_map_path and reduce_zero_label.'
    )


def layout_of(prefix: str) -> LabelLayout | None:
    """Returns the layout that matches the name of a label folder or of its parent, or None if there is no match."""
    parts = Path(prefix).parts[-2:]
    return next((layout for layout in LAYOUTS if layout.folder in parts), None)


def chosen_labels(
    root: str | Path | None, prefix: str | None, reduce_zero_label: bool | None, suffix: str = '.png'
) -> tuple[str, bool]:
    """Returns the label folder, relative to `root`, and whether id 0 is ignored.

    If labels exist in both layouts, the layout that matches `reduce_zero_label` is used or, without a match, the one
    with more files. The choice is logged.

    Args:
        root: root of the data set.
        prefix: the label folder; None searches for one of the layouts.
        reduce_zero_label: overrides the value of the layout; None derives it from the folder name.
        suffix: suffix of the label files.

    Raises:
        DataError: no labels were found, or `prefix` matches no layout and `reduce_zero_label` is None.
    """
    if prefix is None:
        found = layouts_in(root, suffix)
        layout = next((known for known in found if known.reduce_zero_label == reduce_zero_label), found[0])
        prefix = layout.prefix
        if len(found) > 1:
            counts = ', '.join(
                f'{_label_files(Path(root or "") / item.prefix, suffix)} in {item.prefix}' for item in found
            )
            print_log(
                f'{root} contains labels in both layouts of RealLQ ({counts}). Those in {prefix} are used.', 'current'
            )
    else:
        layout = layout_of(prefix)
    if reduce_zero_label is not None:
        return prefix, reduce_zero_label
    if layout is None:
        known = ' and '.join(f'{layout.folder!r} ({layout.ids})' for layout in LAYOUTS)
        raise DataError(
            f'{prefix}: the meaning of the label ids cannot be derived from this name. Known names are {known}. Set '
            f'reduce_zero_label to False for ids 0 to 149 with 255 ignored, or to True for ids 1 to 150 with 0 ignored.'
        )
    return prefix, layout.reduce_zero_label


def _label_files(folder: Path, suffix: str) -> int:
    return sum(file.name.endswith(suffix) for file in walk(folder)) if folder.is_dir() else 0


def _state(folder: Path, suffix: str) -> str:
    """Returns the reason why a folder has no labels."""
    return f'has no file that ends in {suffix}' if folder.is_dir() else 'does not exist'
