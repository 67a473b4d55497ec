"""Words of error messages."""

import pytest

from rass_mm.config.arguments import Count, value_fault
from rass_mm.errors import ConfigError, shown, the_others
from rass_mm.files.schemas import checked


@pytest.mark.parametrize(('count', 'sentence'), [(0, ''), (1, 'The other one is kept.'), (2, 'The other 2 are kept.')])
def test_the_others_are_counted(count, sentence):
    assert the_others(count, 'kept') == sentence


@pytest.mark.parametrize('value', [10**5000, [1, 10**5000], {'a': -(10**5000)}], ids=['int', 'list', 'dict'])
def test_integers_that_python_does_not_write(value):
    assert shown(value) == f'a value of the type {type(value).__name__} with too many digits'
    assert value_fault(value, str)[1].endswith('too many digits, but it should be a valid string.')
    with pytest.raises(ConfigError, match='a.json: the content is a value of the type .* with too many digits'):
        checked(value, str, 'a.json', '', ConfigError)


def test_values_are_shown_in_one_line():
    assert shown('a' * 100) == "'" + 'a' * 56 + '...' and shown(10**5) == '100000'
    assert value_fault(10**5000, Count) is None
