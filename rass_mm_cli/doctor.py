"""`rass-mm doctor`: the installed packages, the versions the tests ran with, and the command that mends each fault.

Also the text of the error when `rass_mm` cannot be imported. Nothing of `rass_mm` is imported here.
"""

import argparse
import platform
import sys
from pathlib import Path
from textwrap import indent

from rass_mm_cli import bases, packages
from rass_mm_cli.packages import PackageReport

EXTRA = 'pip install "rass_mm[restoration]"'


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The arguments of `rass-mm doctor`."""
    parser.add_argument(
        '--imports', action='store_true', help='also import each package in a process of its own (about 20 s)'
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the report; returns 0 where there is nothing to mend, else 1."""
    lines, remedies = report(arguments.imports)
    ending = ['To mend:', *(f'  {remedy}' for remedy in remedies)] if remedies else ['Nothing to mend.']
    sys.stdout.write('\n'.join([*lines, '', *base_lines(), '', *ending]) + '\n')
    return 1 if remedies else 0


def report(imports: bool = False) -> tuple[list[str], list[str]]:
    """Lines of the package table, and the remedies (fault and command) in the order to apply them.

    Args:
        imports: also import each package, in processes of their own.
    """
    rows = packages.package_reports(imports)
    lines = [f'{"package":<24}{"installed":<18}{"tested with":<18}verdict']
    lines += [f'{row.name:<24}{row.installed or "-":<18}{row.proved:<18}{row.verdict}' for row in rows]
    lines.append(f'{"python":<24}{platform.python_version()}')
    lines.append(f'{"NVIDIA card":<24}{"found" if has_card() else "none found (CPU only)"}')
    return lines, [f'{row.problem}: {row.remedy}' for row in rows if row.problem]


def has_card() -> bool:
    """Whether the driver's device files show an NVIDIA card; torch, which knows more, takes seconds to import."""
    return any(Path('/dev').glob('nvidia[0-9]*')) or Path('/dev/dxg').exists()


def base_lines() -> list[str]:
    """Lines on the Stable Diffusion bases: where they are, and the command that downloads the one that configs name."""
    lines = ['Stable Diffusion bases (for the full-size configs; never downloaded by themselves):']
    for source in bases.SOURCES:
        folder = bases.find_source(source)
        lines.append(f'  {source.title:<28}{folder or f"not at {source.folder}"}')
    if bases.find_source(bases.SD21_BASE) is None:
        lines += [f'  To get {bases.SD21_BASE.title}:', indent(bases.SD21_BASE.command(), '    ')]
        lines.append(f'  {bases.other_bases()}')
    return lines


def explain(error: BaseException) -> str | None:
    """Message of a failed import of `rass_mm`: the error, the package table and the remedies.

    Every package is imported in a process of its own to find the one at fault. Returns None where none is: then the
    error is not one of the installation.
    """
    lines, remedies = report(imports=True)
    if not remedies:
        return None
    return '\n'.join([f'rass_mm cannot be imported: {_said(error)}', *lines, 'To mend:', *remedies])


def explain_restoration(error: ImportError) -> str:
    """Message of a failed import of the restoration side: the error and the command that installs it."""
    rows = [PackageReport(name, packages.installed_version(name), packages.PROVED[name]) for name in packages.OPTIONAL]
    found = ', '.join(f'{row.name} {row.installed or "absent"} (tested with {row.proved})' for row in rows)
    return (
        f'The restoration side cannot be imported: {_said(error)}. Found: {found}.\n'
        f'To mend: {EXTRA} (mmagic and what it needs). Segmentation works without it.'
    )


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ImportError) else f'{type(error).__name__}: {error}'
