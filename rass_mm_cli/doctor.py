"""`rass-mm doctor`: lists the installed packages, the tested versions, and the command that fixes each fault.

The module also creates the error message for a failed import of `rass_mm`. It does not import `rass_mm` itself.
"""

import argparse
import platform
import sys
from pathlib import Path
from textwrap import indent

from rass_mm_cli import bases, families, packages
from rass_mm_cli.packages import PackageReport

EXTRA = 'pip install "rass_mm[restoration]"'


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm doctor` to a parser and returns the parser."""
    parser.add_argument(
        '--imports', action='store_true', help='also import each package in a separate process (about 40 s of CPU time)'
    )
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the report. Returns the exit status: 0 if there is nothing to fix, otherwise 1."""
    lines, remedies = report(arguments.imports)
    ending = ['To fix:', *(f'  {remedy}' for remedy in remedies)] if remedies else ['Nothing to fix.']
    sys.stdout.write('\n'.join([*lines, '', *base_lines(), '', *ending]) + '\n')
    return 1 if remedies else 0


def report(imports: bool = False) -> tuple[list[str], list[str]]:
    """Returns the lines of the package table, and the remedies in the order in which to apply them.

    Each remedy is a line with a fault and the command that fixes it.

    Args:
        imports: whether to import each package as well, in separate processes.
    """
    rows = packages.package_reports(imports)
    lines = [f'{"package":<24}{"installed":<18}{"tested with":<18}verdict']
    lines += [f'{row.title:<24}{row.installed or "-":<18}{row.proved:<18}{row.verdict}' for row in rows]
    lines.append(f'{"python":<24}{platform.python_version()}')
    lines.append(f'{"NVIDIA GPU":<24}{"found" if has_card() else "none found (CPU only)"}')
    return lines, [f'{row.problem}: {row.remedy}' for row in rows if row.problem]


def has_card() -> bool:
    """Returns whether there are device files of the NVIDIA driver. Importing torch to check would take seconds."""
    return any(Path('/dev').glob('nvidia[0-9]*')) or Path('/dev/dxg').exists()


def base_lines() -> list[str]:
    """Returns the lines of the report about the bases: their folders, and how to download a missing default base."""
    lines = ['Stable Diffusion bases (for the full-size configs; never downloaded automatically):']
    for source in bases.SOURCES:
        folder = bases.find_source(source)
        lines.append(f'  {source.title:<28}{folder or f"not found at {source.folder}"}')
    if bases.find_source(bases.SD21_BASE) is None:
        lines.append(f'  To download {bases.SD21_BASE.title}: rass-mm fetch {bases.SD21_BASE.name}, or:')
        lines.append(indent(bases.SD21_BASE.command(), '    '))
        lines.append(f'  {bases.other_bases()}')
    return lines


def explain(error: BaseException) -> str | None:
    """Returns the message for a failed import of `rass_mm`: the error, the package table and the remedies.

    Each package is imported in a separate process to find the faulty ones. Returns None if all packages work, because
    in this case the error is not caused by the installation.
    """
    lines, remedies = report(imports=True)
    if not remedies:
        return None
    return '\n'.join([f'rass_mm cannot be imported: {_said(error)}', *lines, 'To fix:', *remedies])


def explain_restoration(error: ImportError) -> str:
    """Returns the message for a failed import of the restoration plugin: the error and the installation command."""
    rows = [PackageReport(name, packages.installed_version(name), packages.PROVED[name]) for name in packages.OPTIONAL]
    found = ', '.join(f'{row.name} {row.installed or "absent"} (tested with {row.proved})' for row in rows)
    if families.has_forks():
        # Installing mmagic here would bring the originals, whose files overwrite those of the forks.
        return (
            f'The restoration plugin cannot be imported: {_said(error)}.\n'
            'It needs mmagic, which has no fork. To restore images, create another environment with the original '
            f'OpenMMLab packages: {EXTRA}. Segmentation works in the current environment.'
        )
    return (
        f'The restoration plugin cannot be imported: {_said(error)}. Found: {found}.\n'
        f'To fix: {EXTRA} (mmagic and its dependencies). Segmentation works without it.'
    )


def _said(error: BaseException) -> str:
    return str(error) if isinstance(error, ImportError) else f'{type(error).__name__}: {error}'
