"""Command line of the current process, which is stored in records of results."""

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Returns the shell command of the current process, e.g. `python tools/test.py rass/rass_scenes_tiny.py x.pth`.

    The path of the interpreter is omitted. If torchrun started several processes on this machine, the command contains
    the call of `torch.distributed.run`.
    """
    program, arguments = Path(sys.argv[0]), sys.argv[1:]
    if program.name == '__main__.py':
        words = ['python', '-m', program.parent.name]
    elif program.suffix == '.py':
        words = ['python', sys.argv[0]]
        if os.environ.get('LOCAL_WORLD_SIZE'):
            words[1:1] = ['-m', 'torch.distributed.run', '--nproc_per_node', os.environ['LOCAL_WORLD_SIZE']]
    else:
        words = [program.name]
    return shlex.join([*words, *arguments])
