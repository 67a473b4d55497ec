"""Light installation: what is missing without the extras of this package, and the message of a command that needs them.

The module uses only the standard library and reads the metadata of the installed packages.
"""

from collections.abc import Sequence

from rass_mm_cli import families

SEGMENTATION, RESTORATION = 'segmentation', 'restoration'
COMMANDS = {
    **dict.fromkeys(('train', 'test', 'check-data', 'make-scenes', 'make-base'), (SEGMENTATION,)),
    **dict.fromkeys(('robustness', 'benchmark', 'report', 'pack'), (SEGMENTATION,)),
    'app': (SEGMENTATION, 'app'),
    'export': (SEGMENTATION, 'export'),
    'demo': (RESTORATION,),
}
"""Command -> extras without which it does not run. A command that is not listed runs in a light installation."""
NAMES = (*families.FORKS, *(fork for fork, _ in families.FORKS.values()))


def has_segmentation() -> bool:
    """Returns whether a package of OpenMMLab is installed, of either family.

    One is enough, so that an incomplete installation is reported package by package, see `rass_mm_cli.doctor`.
    """
    return any(map(families.is_installed, NAMES))


def lacking(purpose: str, extras: Sequence[str] = (SEGMENTATION,)) -> str | None:
    """Returns the sentence that says what a purpose needs in a light installation. Returns None in any other.

    Libraries of other extras are missed by the modules that import them, see `rass_mm.files.optional`.

    Args:
        purpose: e.g. 'rass-mm train'.
        extras: the extras that it needs; none if it needs only what every installation has.
    """
    if not extras or has_segmentation():
        return None
    forks = '; the extra onedl has the maintained forks' if RESTORATION not in extras else ''
    return (
        f'{purpose} needs optional packages that are not installed: pip install "rass_mm[{",".join(extras)}]" (mmcv is '
        f'compiled, see Getting started in the documentation{forks}).'
    )
