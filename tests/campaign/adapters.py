"""Cases of adapters."""

from collections.abc import Iterator

from campaign.cases import Case


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    yield from ()
