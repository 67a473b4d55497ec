"""The two families of OpenMMLab packages: the originals, and maintained forks with the same import names.

pip allows both in one environment, although the files of one then overwrite those of the other.
"""

import importlib.metadata

FORKS = {
    'mmengine': ('onedl-mmengine', '0.10.12'),
    'mmcv': ('onedl-mmcv', '2.3.6'),
    'mmsegmentation': ('onedl-mmsegmentation', '1.4.2'),
    'mmdet': ('onedl-mmdetection', '3.5.1'),
}
"""Original -> distribution of its fork and the tested version. mmagic has no fork."""


def distribution(name: str) -> str:
    """Returns the name of the installed distribution of a package: that of its fork if only the fork is installed."""
    if name in FORKS and not is_installed(name) and is_installed(FORKS[name][0]):
        return FORKS[name][0]
    return name


def has_forks() -> bool:
    """Checks whether a fork is installed without its original."""
    return any(distribution(name) != name for name in FORKS)


def mixed() -> list[str]:
    """Returns the packages of which both the original and the fork are installed."""
    return [name for name, (fork, _) in FORKS.items() if is_installed(name) and is_installed(fork)]


def is_installed(name: str) -> bool:
    """Checks whether a distribution is installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
