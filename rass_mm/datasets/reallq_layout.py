"""The two layouts in which RealLQ's labels come, and which of them a folder has."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.logging import print_log

from rass_mm.errors import DataError

IMAGES = 'images/validation'


@dataclass(frozen=True)
class LabelLayout:
    """Where label files are and what their ids mean.

    Args:
        prefix: folder of the labels below the data root.
        reduce_zero_label: whether id 0 is ignored and id k is class k - 1.
        ids: the ids in words.
    """

    prefix: str
    reduce_zero_label: bool
    ids: str

    @property
    def folder(self) -> str:
        """The first part of the prefix, by which a layout is known."""
        return self.prefix.partition('/')[0]


LAYOUTS = (
    LabelLayout('annotations_detectron2/validation', False, 'ids 0 to 149, 255 ignored'),
    LabelLayout('annotations/validation', True, 'ids 1 to 150, 0 ignored'),
)
"""In order of preference among folders with equally many labels: first the one that the released code reads."""


def layouts_in(root: str | Path | None, suffix: str = '.png') -> list[LabelLayout]:
    """The layouts whose folder below `root` holds label files, the one with most files first; at least one.

    Raises:
        DataError: there is none.
    """
    root = Path(root or '')
    counts = {layout: _label_files(root / layout.prefix, suffix) for layout in LAYOUTS}
    if any(counts.values()):
        # A folder that was copied in part must not win over a complete one.
        return sorted((layout for layout in LAYOUTS if counts[layout]), key=lambda layout: -counts[layout])
    states = {layout: _state(root / layout.prefix, suffix) for layout in LAYOUTS}
    places = ''.join(f'  {root / layout.prefix} ({layout.ids}): {state}\n' for layout, state in states.items())
    raise DataError(
        f'No labels of RealLQ were found. The places looked for are\n{places}'
        f'Images are {root / IMAGES}/*.jpg, labels have the same names and end in {suffix}. Put the labels into the '
        f'one of these folders whose ids they have, or set data_root to the folder that holds it '
        f'(ADEChallengeData2016 in the archive). For labels elsewhere set data_prefix.seg_map_path and '
        f'reduce_zero_label.'
    )


def layout_of(prefix: str) -> LabelLayout | None:
    """The layout whose folder name a label folder or its parent has; None for other names."""
    parts = Path(prefix).parts[-2:]
    return next((layout for layout in LAYOUTS if layout.folder in parts), None)


def chosen_labels(
    root: str | Path | None, prefix: str | None, reduce_zero_label: bool | None, suffix: str = '.png'
) -> tuple[str, bool]:
    """The label folder below `root`, and whether its id 0 is ignored; a choice between both layouts is logged.

    Args:
        root: the data set's root.
        prefix: the label folder; None looks for one of the layouts.
        reduce_zero_label: True or False decides; None follows the folder's name.
        suffix: of label files.

    Raises:
        DataError: no layout was found, or a folder of another name was given without `reduce_zero_label`.
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
                f'{root} holds labels in both layouts of RealLQ ({counts}). Those in {prefix} are used.', 'current'
            )
    else:
        layout = layout_of(prefix)
    if reduce_zero_label is not None:
        return prefix, reduce_zero_label
    if layout is None:
        known = ' or '.join(f'{layout.folder!r} ({layout.ids})' for layout in LAYOUTS)
        raise DataError(
            f'{prefix}: the name does not tell what the label ids mean; it would be {known}. Set reduce_zero_label '
            f'to False for ids 0 to 149 with 255 ignored, or to True for ids 1 to 150 with 0 ignored.'
        )
    return prefix, layout.reduce_zero_label


def _label_files(folder: Path, suffix: str) -> int:
    return sum(file.name.endswith(suffix) for file in folder.rglob('*')) if folder.is_dir() else 0


def _state(folder: Path, suffix: str) -> str:
    """Why a folder has no labels."""
    return f'holds no file that ends in {suffix}' if folder.is_dir() else 'does not exist'
