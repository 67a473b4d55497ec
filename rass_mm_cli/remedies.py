"""Shell commands that repair an installation."""

from rass_mm_cli import families

REINSTALL = 'pip install --force-reinstall --no-deps'
BUILD_TOOLS = 'pip install "setuptools<81" wheel ninja psutil packaging'


def mmcv_remedy(version: str, rebuild: bool, mixed: bool = False) -> str:
    """Returns the shell command that compiles mmcv, or its fork in an environment with forks.

    Args:
        version: version of mmcv.
        rebuild: whether the installed mmcv is removed first.
        mixed: whether mmcv and its fork are both installed. In this case, both are removed and mmcv is compiled.
    """
    fork, forked = families.FORKS['mmcv']
    forks = families.has_forks() and not mixed
    requirement = f'{fork}=={forked} --no-deps' if forks else f'mmcv=={version}'
    removed = f'mmcv {fork}' if mixed else fork if forks else 'mmcv'
    uninstall = f'pip uninstall -y {removed} && ' if rebuild else ''
    install = f'MMCV_WITH_OPS=1 pip install --no-cache-dir --no-build-isolation {requirement}'
    return f'{uninstall}{BUILD_TOOLS} && {install}'
