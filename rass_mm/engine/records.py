"""Command line of this process, for records."""

import os
import shlex
import sys
from pathlib import Path


def command_line() -> str:
    """Returns a command that repeats this process, e.g. `python tools/test.py rass/rass_scenes_tiny.py x.pth`.

    The path of the interpreter is omitted. Multiple processes on one machine are written as a torchrun command.
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
