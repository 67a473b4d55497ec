"""Words of error messages."""

from typing import Annotated

import pytest
from pydantic import Field

from rass_mm.config.arguments import Count, value_fault
from rass_mm.errors import ConfigError, printable, shown, the_others
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


def test_control_characters_are_shown_as_escapes():
    assert printable('a\x1b[31m\x07\r\u202e\x9b\n\tb é 通 \u200f') == 'a\\x1b[31m\\x07\\r\\u202e\\x9b\n\tb é 通 \u200f'


@pytest.mark.parametrize(
    ('kind', 'value', 'words'),
    [
        (Annotated[str, Field(min_length=1)], '', "is '', but it should have at least 1 character."),
        (Annotated[str, Field(pattern='^a$')], 'b', "is 'b', but it should match pattern '^a$'."),
        (int, 'b', "is 'b', but it should be a valid integer."),
    ],
)
def test_what_a_value_should_be_is_a_sentence(kind, value, words):
    with pytest.raises(ConfigError) as raised:
        checked(value, kind, 'a.json', 'Fix it.', ConfigError)
    assert str(raised.value) == f'a.json: the content {words} Fix it.'
