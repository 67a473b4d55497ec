"""Words of error messages."""

import pytest

from rass_mm.errors import the_others


@pytest.mark.parametrize(('count', 'sentence'), [(0, ''), (1, 'The other one is kept.'), (2, 'The other 2 are kept.')])
def test_the_others_are_counted(count, sentence):
    assert the_others(count, 'kept') == sentence
