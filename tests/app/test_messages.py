"""Messages for users of the page, who have no command line."""

import errno
import logging

import pytest

from rass_mm.app.messages import DISK, MEMORY, UNEXPECTED, message_of
from rass_mm.errors import ConfigError, DataError


@pytest.mark.parametrize(
    'error',
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        DataError('Too little memory for an image of 9x9 pixels. Use windows (--mode windows).'),
        ConfigError('Too little memory for 1 windows of 512 pixels. Use a smaller batch or window.'),
    ],
)
def test_too_little_memory_is_said_without_options_of_commands(error):
    shown = message_of(error)
    assert shown == MEMORY and 'memory' in shown and '--' not in shown


def test_huge_images_are_refused_without_options_of_commands(service, hostile):
    huge = next(path for path in hostile if path.name == 'huge.png')
    for function in (service.restore, service.segment):
        with pytest.raises(DataError) as caught:
            function(huge)
        message = message_of(caught.value)
        assert '20000x20000' in message and 'Reduce' in message and '--' not in message and 'Python' not in message


def test_unexpected_errors_are_logged_and_not_shown(caplog):
    with caplog.at_level(logging.ERROR):
        assert message_of(OSError(errno.ENOSPC, 'No space left')) == DISK
        assert message_of(KeyError('secret')) == UNEXPECTED
    assert 'secret' in caplog.text
    assert message_of(DataError('a.png is damaged.')) == 'a.png is damaged.'
