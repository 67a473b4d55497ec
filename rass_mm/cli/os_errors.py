"""Error messages for an `OSError` that is raised when a command reads or writes a file or folder."""

import errno
import os
from pathlib import Path

FOLDER_EXPECTED = (errno.EEXIST, errno.ENOTDIR)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, getattr(errno, 'EDQUOT', errno.ENOSPC), errno.EFBIG)


def explain_os_error(error: OSError) -> str | None:
    """Returns a message for a full disk and for an error that has a file name.

    Returns None for other errors, such as a failed connection.
    """
    path = error.filename if error.filename2 is None else error.filename2  # the target of a renaming
    if not isinstance(path, (str, bytes, os.PathLike)):
        if error.errno in FULL:  # an error of a write has no file name
            return f'A file cannot be written: {error.strerror}. Free disk space, and run the same command again.'
        return None
    path = Path(os.fsdecode(path))
    if error.errno in FOLDER_EXPECTED:
        blocking = next((place for place in (path, *path.parents) if place.is_file()), path)
        return f'{blocking} is a file, but a folder was expected. Choose another path, or move the file.'
    if error.errno == errno.EISDIR:
        return f'{path} is a folder, but a file was expected. Add a file name to the path, or choose another path.'
    if error.errno == errno.ENOENT:
        return f'{path} does not exist. Check the path, or create the file first.'
    if error.errno in REFUSED:
        return f'{path} cannot be accessed: {error.strerror}. Choose another path, or change the permissions.'
    return f'{path} cannot be used: {error.strerror}. Fix this, or choose another path.'
