"""Detection of labels that look shifted by one, or that leave nothing to learn, from the frequency of each id."""

from collections.abc import Mapping

from rass_mm.datasets.check.listing import IGNORED, LabelRules
from rass_mm.datasets.labels import background_hint
from rass_mm.datasets.reallq_layout import LAYOUTS, LabelLayout


def shift_hints(raw_ids: Mapping[int, int], rules: LabelRules) -> list[str]:
    """Returns hints if `reduce_zero_label` seems wrong or if RealLQ's labels seem to be in the wrong folder.

    Args:
        raw_ids: number of pixels by label id, as in the files.
        rules: rules by which the ids are read.
    """
    number = rules.num_classes
    ids = {raw for raw in raw_ids if raw not in (rules.ignore_index, IGNORED)}
    if number is None or not ids or rules.label_map:  # ids of selected classes are not contiguous
        return []
    if rules.layout is not None:
        return _layout_hints(raw_ids, ids, rules)
    if not rules.reduce_zero_label and max(ids) == number:
        return [f'The largest id is {number}, but the classes are 0 to {number - 1}. {background_hint(number)}']
    if rules.reduce_zero_label and 0 in ids and max(ids) == number - 1 and len(ids) > number // 2:
        return [
            f'reduce_zero_label=True ignores id 0, but id {number} never occurs, so the classes seem to be 0 to '
            f'{number - 1}. If id 0 is not the background, set reduce_zero_label=False in the data set.'
        ]
    return []


def unlearnable(raw_ids: Mapping[int, int], rules: LabelRules) -> list[str]:
    """Returns a list with the reason why a model cannot learn from the labels, or an empty list if it can.

    A model cannot learn if all pixels are ignored, or if 0 and 255 are the only ids. The latter occurs in binary masks,
    whose foreground is ignored because 255 is the ignored id.
    """
    found = {rules.class_of(raw) for raw in raw_ids} - {None}
    mask = set(raw_ids) == {0, IGNORED} and rules.num_classes != 1
    fix = (
        'Ids 0 and 255 look like a binary mask, but 255 is ignored. Save the foreground as id 1, name both classes, '
        "e.g. metainfo.classes=('background', 'foreground'), and set reduce_zero_label=False."
    )
    if not found:
        return [f'Every label pixel is ignored (ids {_few(raw_ids)}). {fix if mask else ""}'.strip()]
    return [f'Only one class occurs, and all other pixels are ignored. {fix}'] if mask and len(found) == 1 else []


def _few(ids: Mapping[int, int]) -> str:
    return ', '.join(map(str, sorted(ids)[:5])) + (', ...' if len(ids) > 5 else '')


def _layout_hints(raw_ids: Mapping[int, int], ids: set[int], rules: LabelRules) -> list[str]:
    """Returns hints for RealLQ, where id 255 occurs only in one layout and id `num_classes` only in the other."""
    number, has_255 = rules.num_classes, IGNORED in raw_ids
    if not rules.reduce_zero_label and max(ids) == number:
        found = f'Id {number} is out of range, because the classes are 0 to {number - 1}'
        if has_255:
            other = f'ids 1 to {number}, 0 ignored'
            return [f'{found}. As id {IGNORED} also occurs, some files may have the other layout ({other}).']
        return [_shifted(f'{found}, and id {IGNORED} never occurs', rules.layout, True)]
    if rules.reduce_zero_label and has_255 and 0 in ids and max(ids) < number:
        return [_shifted(f'Id {IGNORED} occurs and id {number} never occurs', rules.layout, False)]
    return []


def _shifted(found: str, layout: LabelLayout, reduce_zero_label: bool) -> str:
    looks = next(known for known in LAYOUTS if known.reduce_zero_label == reduce_zero_label)
    move = '' if layout is looks else f' or move the files to {looks.prefix}'
    return (
        f'{found}, so the labels look shifted by one. The files seem to contain {looks.ids}. If so, set '
        f'reduce_zero_label={reduce_zero_label} in the data set{move}.'
    )
