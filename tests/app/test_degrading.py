"""Degradations of the page are those of the recipe."""

import numpy as np
import pytest

from rass_mm.app.degrading import RANGES, Degradation
from rass_mm.degradation import applying, severity
from rass_mm.errors import ConfigError

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_neutral_amounts_change_nothing():
    assert (Degradation('none').of(IMAGE) == IMAGE).all()
    assert (Degradation('amounts').of(IMAGE) == IMAGE).all()


def test_the_recipe_is_that_of_make_lq():
    expected = applying.apply(IMAGE, severity.at_severity('mixed', 1, 48, 64, 7))
    assert (Degradation('recipe', seed=7).of(IMAGE) == expected).all()


@pytest.mark.parametrize('kind', severity.SINGLES)
def test_an_amount_is_the_single_degradation(kind):
    amount = severity.parameter(kind, 0.7)
    expected = severity.single(kind, 0.7, 48, 64, seed=3)
    assert Degradation('amounts', seed=3, **{kind: amount}).parameters(48, 64) == expected
    assert (Degradation('amounts', seed=3, **{kind: amount}).of(IMAGE) != IMAGE).any()


def test_amounts_are_applied_in_one_order():
    steps = Degradation('amounts', jpeg=40, gaussian=20, blur=2).parameters(48, 64)['steps']
    assert [step['op'] for step in steps] == ['blur', 'noise', 'jpeg']


@pytest.mark.parametrize('name', ['severity', 'seed', *RANGES])
@pytest.mark.parametrize('value', [-1, 2**40, float('nan'), float('inf'), '1', None])
def test_values_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Degradation('recipe', **{name: value})


def test_other_modes_and_fractions_of_seeds_are_refused():
    with pytest.raises(ConfigError, match='none, recipe, amounts'):
        Degradation('rain')
    with pytest.raises(ConfigError, match='integer'):
        Degradation('recipe', seed=0.5)
