"""The two families of OpenMMLab packages: the originals, and maintained forks with the same import names.

pip can install an original and its fork in one environment, but the files of one overwrite those of the other.
"""

import importlib.metadata

FORKS = {
    'mmengine': ('onedl-mmengine', '0.10.12'),
    'mmcv': ('onedl-mmcv', '2.3.6'),
    'mmsegmentation': ('onedl-mmsegmentation', '1.4.2'),
    'mmdet': ('onedl-mmdetection', '3.5.1'),
}
"""Name of the original package -> distribution name and tested version of its fork. mmagic has no fork."""


def distribution(name: str) -> str:
    """Returns the distribution name of a package, which is that of its fork if only the fork is installed."""
    if name in FORKS and not is_installed(name) and is_installed(FORKS[name][0]):
        return FORKS[name][0]
    return name


def has_forks() -> bool:
    """Returns whether a fork is installed without its original."""
    return any(distribution(name) != name for name in FORKS)


def mixed() -> list[str]:
    """Returns the names of the packages whose original and fork are both installed."""
    return [name for name, (fork, _) in FORKS.items() if is_installed(name) and is_installed(fork)]


def is_installed(name: str) -> bool:
    """Returns whether a distribution is installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
