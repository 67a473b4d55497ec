"""`rass-mm doctor`: what is installed, what it was proved with, and the command that mends what is wrong.

Uses `compat` only, so that it also serves as the text of the error when the package cannot be imported.
"""

import platform
import sys

from rass_mm import compat


def report() -> tuple[list[str], list[str]]:
    """Lines of the version table, and the remedies (problem and command) in the order to apply them."""
    rows = compat.package_reports()
    lines = [f'{"package":<24}{"installed":<18}{"proved":<18}verdict']
    lines += [f'{row.name:<24}{row.installed or "-":<18}{row.proved:<18}{row.verdict}' for row in rows]
    remedies = [f'{row.name} is absent: {row.remedy}' for row in rows if row.remedy]
    problem = compat.operators_problem() if compat.installed_version('mmcv') else 'mmcv is absent'
    lines.append(f'{"mmcv operators":<24}{"compiled" if problem is None else problem}')
    if problem and compat.installed_version('mmcv'):
        remedies.append(f'mmcv has no working operators: pip uninstall -y mmcv && {compat.MMCV_REMEDY}')
    lines.append(f'{"python":<24}{platform.python_version()}')
    lines.append(f'{"accelerator":<24}{accelerator()}')
    return lines, remedies


def accelerator() -> str:
    """Name of the first GPU, or why there is none."""
    try:
        import torch
    except Exception as error:  # a broken torch can raise anything; the doctor must go on
        return f'torch does not import: {error}'
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'none (CPU only)'


def examine() -> int:
    """Prints the report; returns 0 where nothing has to be mended, else 1."""
    lines, remedies = report()
    sys.stdout.write('\n'.join(lines) + '\n\n')
    sys.stdout.write(
        '\n'.join(['To mend:', *(f'  {remedy}' for remedy in remedies)] if remedies else ['Nothing to mend.']) + '\n'
    )
    return 1 if remedies else 0


def explain(error: ImportError) -> str:
    """The message of a failed import: the error, the table and the remedies."""
    lines, remedies = report()
    return '\n'.join(
        [f'rass_mm cannot be imported: {error}', *lines, 'To mend:', *(remedies or ['see the versions above'])]
    )


def explain_restoration(error: ImportError) -> str:
    """The message where the restoration side cannot be imported: the error and the command that installs it."""
    rows = [row for row in compat.package_reports() if row.name in compat.OPTIONAL]
    found = ', '.join(f'{row.name} {row.installed or "absent"} (proved: {row.proved})' for row in rows)
    return (
        f'The restoration side cannot be imported: {error}. Found: {found}.\n'
        f'To mend: pip install "rass_mm[restoration]" (mmagic and what it needs). Segmentation works without it.'
    )
