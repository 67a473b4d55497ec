"""Frames of tracebacks, and whether their code is part of a library."""

import os
import re
import sysconfig
import traceback
from pathlib import Path
from types import FrameType, TracebackType

from rass_mm.config.shipped import PACKAGE

STANDARD = os.path.realpath(sysconfig.get_path('stdlib')) + os.sep
OWN = str(PACKAGE) + os.sep
WORKER_FRAME = re.compile(r'^\s*File "([^"]+)", line \d+', re.MULTILINE)


def frames(trace: TracebackType | None) -> list[FrameType]:
    """Returns the frames of a traceback, the innermost first."""
    return [frame for frame, _ in traceback.walk_tb(trace)][::-1]


def through_user_code(error: BaseException) -> bool:
    """Returns whether an error passed through code that is neither of this package nor of an installed one."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files += WORKER_FRAME.findall(str(error))
    return not all(map(in_library, files))


def in_library(file: str) -> bool:
    """Returns whether a file of code is part of Python, of this package or of an installed one."""
    if file.startswith(('<', OWN)) or not {'site-packages', 'dist-packages'}.isdisjoint(Path(file).parts):
        return True
    return os.path.realpath(file).startswith(STANDARD)
