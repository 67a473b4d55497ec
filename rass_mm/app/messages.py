"""Messages for users of the app, who cannot change its options."""

import errno
import logging
import re

from rass_mm.errors import RassError

logger = logging.getLogger(__name__)

UNEXPECTED = 'The image could not be processed. The terminal in which the app runs shows the reason.'
MEMORY = 'There is too little memory for this image. Choose a smaller one.'
DISK = 'The disk of the app is full. Try again later.'
LITTLE_MEMORY = re.compile('too little memory|out of memory|allocate memory', re.IGNORECASE)
ADVICE = ' If it is not damaged, raise the limit'
"""Beginning of the advice of `rass_mm.files.integrity.TooManyPixelsError` to the user of a command."""


def message_of(error: Exception) -> str:
    """Returns the message of an error for users. Unexpected errors are logged and not shown."""
    if isinstance(error, MemoryError) or LITTLE_MEMORY.search(str(error)):
        logger.warning('Too little memory: %s', error)
        return MEMORY
    if isinstance(error, RassError):
        reason, advice, _ = str(error).partition(ADVICE)
        return f'{reason} Reduce the image.' if advice else reason
    logger.error('Unexpected error', exc_info=error)
    return DISK if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) else UNEXPECTED
