"""`rass-mm doctor`: what is installed, what it was proved with, and the command that mends what is wrong.

Uses `compat` and `base_sources` only, so that it also serves as the text of the error when the package cannot be
imported.
"""

import platform
import sys
from textwrap import indent

from rass_mm import base_sources, compat


def report() -> tuple[list[str], list[str]]:
    """Lines of the version table, and the remedies (problem and command) in the order to apply them."""
    rows = compat.package_reports()
    lines = [f'{"package":<24}{"installed":<18}{"proved":<18}verdict']
    lines += [f'{row.name:<24}{row.installed or "-":<18}{row.proved:<18}{row.verdict}' for row in rows]
    remedies = [f'{row.problem}: {row.remedy}' for row in rows if row.problem]
    problem = compat.operators_problem() if compat.installed_version('mmcv') else 'mmcv is absent'
    lines.append(f'{"mmcv operators":<24}{"compiled" if problem is None else problem}')
    if problem and compat.installed_version('mmcv'):
        remedies.append(f'mmcv has no working operators: {compat.REBUILD_MMCV}')
    lines.append(f'{"python":<24}{platform.python_version()}')
    lines.append(f'{"accelerator":<24}{accelerator()}')
    return lines, remedies


def bases() -> list[str]:
    """Lines on the Stable Diffusion bases: where they are, and the command that downloads the one that configs name."""
    lines = ['Stable Diffusion bases (for the full-size configs; never downloaded by themselves):']
    for source in base_sources.SOURCES:
        folder = base_sources.find_source(source)
        lines.append(f'  {source.title:<28}{folder or f"not at {source.folder}"}')
    if base_sources.find_source(base_sources.SD21_BASE) is None:
        lines += [f'  To get {base_sources.SD21_BASE.title}:', indent(base_sources.SD21_BASE.command(), '    ')]
        lines.append(f'  {base_sources.other_bases()}')
    return lines


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
    sys.stdout.write('\n'.join([*lines, '', *bases()]) + '\n\n')
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
