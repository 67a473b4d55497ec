"""Entry point of `rass-mm`, which imports only the requested command."""

import argparse
import importlib
import importlib.util
import io
import os
import runpy
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from rass_mm_cli import doctor, extras, start
from rass_mm_cli.children import fork_server_ended
from rass_mm_cli.interruption import Interruption, noted
from rass_mm_cli.parser import CommandParser, nearest
from rass_mm_cli.table import COMMANDS, Command, overview

OPTIONS = ('-h', '--help', '--version')
INTERRUPTED = 130
"""Exit status after Ctrl-C."""
PARENT = 'RASS_MM_PARENT'
"""Environment variable with the id of the process that started this one and whose end also ends this one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `rass-mm`.

    Args:
        argv: the arguments, without the program name. None uses the arguments of the process.

    Returns:
        The exit status: 0 on success, 1 on an error, 2 on a usage error, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ['help'] and arguments[1:]:
        arguments = [arguments[1], '--help']
    if not arguments or arguments[0] in ('-h', '--help', 'help'):
        sys.stdout.write(overview())
        return 0
    name = arguments.pop(0)
    if name == '--version':
        sys.stdout.write(version() + '\n')
        return 0
    if name not in COMMANDS:
        kind, known = ('option', OPTIONS) if name.startswith('-') else ('command', [*COMMANDS, 'help'])
        sys.stderr.write(f'error: there is no {kind} {name!r}.{nearest(name, known)} Run rass-mm --help for a list.\n')
        return 2
    page = start.help_page(name) if arguments in (['-h'], ['--help']) else None
    if page is not None:
        sys.stdout.write(page)
        return 0
    return run_command(name, arguments)


@start.kept_choice()
def run_command(name: str, argv: Sequence[str] | None = None, program: str | None = None) -> int:
    """Runs the command with the given name.

    Args:
        name: a key of `COMMANDS`.
        argv: arguments of the command. None uses the arguments of the process.
        program: name of the program in help and error messages. None uses `rass-mm NAME`.

    Returns:
        The exit status, see `main`.
    """
    _end_with_parent()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')  # file names may contain bytes that are not UTF-8
    with noted() as interruption, fork_server_ended():
        try:
            return _run(name, argv, program, interruption)
        except KeyboardInterrupt:
            sys.stderr.write(f'\nInterrupted. {interruption.advice}'.rstrip() + '\n')
            return INTERRUPTED


def _run(name: str, argv: Sequence[str] | None, program: str | None, interruption: Interruption) -> int:
    """Runs a command like `run_command`, but raises KeyboardInterrupt after Ctrl-C."""
    lacking = extras.lacking(program or f'rass-mm {name}', extras.COMMANDS.get(name, ()))
    if lacking:
        sys.stderr.write(f'error: {lacking}\n')
        return 1
    try:
        module, guarded = _imported(COMMANDS[name])
    except Exception as error:  # a broken library may raise any error, e.g. OSError for a shared object
        if interruption.seen:
            raise KeyboardInterrupt from None
        explained = str(error) if _is_explained(error) else doctor.explain(error)
        if explained is None:
            raise
        sys.stderr.write(f'\nerror: {explained}\n')
        return 1
    given = list(sys.argv[1:] if argv is None else argv)
    parsed = parser_of(name, module, program).parse_args(given)
    parsed.command_line = (name, given)
    interruption.advice = getattr(parsed, 'interrupted', '')
    parsed.run = interruption.over_errors(parsed.run)
    return guarded(parsed)


def parser_of(name: str, module: ModuleType, program: str | None = None) -> CommandParser:
    """Returns the parser of a command, whose module is given. `program` is as in `run_command`."""
    summary = COMMANDS[name].help
    parser = CommandParser(prog=program or f'rass-mm {name}', description=f'{summary[0].upper()}{summary[1:]}.')
    module.add_arguments(parser)
    return parser


def _imported(command: Command) -> tuple[ModuleType, Callable[[argparse.Namespace], int]]:
    """Imports the module of a command. Returns it and the function that runs the command."""
    if command.module == doctor.__name__:
        return doctor, _unguarded
    start.choose_plugin(command.plugin)
    with start.importing():
        package = importlib.import_module('rass_mm')
        if command.plugin and extras.has_segmentation():
            package.register()  # an earlier command of this process may have done without
        return importlib.import_module(command.module), importlib.import_module('rass_mm.cli.guard').guarded


def _end_with_parent() -> None:
    """Ends this process when its parent ends, if torchrun or another command (`PARENT`) started it."""
    given = os.environ.pop(PARENT, None)  # it does not apply to the children of this process
    if given is None and 'TORCHELASTIC_RUN_ID' not in os.environ:
        return
    parent = int(given or os.getppid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_explained(error: Exception) -> bool:
    """Returns whether the error is an `InstallationError`, whose module stays loaded if importing `rass_mm` fails."""
    errors = sys.modules.get('rass_mm.errors')
    return errors is not None and isinstance(error, errors.InstallationError)


def _unguarded(arguments: argparse.Namespace) -> int:
    return arguments.run(arguments)


def version() -> str:
    """Returns the version of `rass_mm` without importing the package."""
    package = importlib.util.find_spec('rass_mm')
    return runpy.run_path(str(Path(package.origin).parent / 'version.py'))['__version__']
