"""Error handling shared by the commands. It imports no library."""

import argparse
import sys

from rass_mm.cli.os_errors import explain_os_error
from rass_mm.errors import RassError, printable


def guarded(arguments: argparse.Namespace) -> int:
    """Runs `arguments.run` and returns its exit status.

    For a `RassError`, or an `OSError` with a file name, it prints the message without a traceback and returns 1.
    """
    try:
        code = arguments.run(arguments)
        if getattr(arguments, 'launcher', 'none') != 'none':
            _leave_group()
        return code
    except RassError as error:
        # The message of an error from a data worker includes the traceback of the worker.
        message = str(error).split(f'{type(error).__name__}: ')[-1]
    except OSError as error:
        message = explain_os_error(error)
        if message is None:
            raise
    sys.stderr.write(f'\nerror: {printable(message.strip())}\n')
    return 1


def _leave_group() -> None:
    """Destroys the process group, because its threads can abort a successful run when the interpreter exits."""
    torch = sys.modules.get('torch')  # not imported here: some commands do without it
    if torch is not None and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
