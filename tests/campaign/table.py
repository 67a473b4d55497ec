"""All cases of the campaign."""

from collections.abc import Iterator
from importlib import import_module

from campaign.cases import Case, unique

GROUPS = (
    'adapters',
    'base',
    'checkpoints',
    'cmdline',
    'configs',
    'images',
    'jsons',
    'labels',
    'malicious',
    'packs',
    'parquets',
    'tars',
)


def all_cases() -> list[Case]:
    """Returns the cases of all groups, in order."""
    return unique(case for group in GROUPS for case in cases_of(group))


def cases_of(group: str) -> Iterator[Case]:
    """Yields the cases of a group."""
    yield from import_module(f'campaign.{group}').cases()
