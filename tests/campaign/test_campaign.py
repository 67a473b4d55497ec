"""A share of the campaign that fits an ordinary run; `make campaign` runs all of it."""

import pytest
from campaign import server
from campaign.table import GROUPS, all_cases, cases_of

SHARE = 150
"""Of so many cases, one is run."""


@pytest.mark.parametrize('group', GROUPS)
def test_a_share_of_the_cases_is_right(group, kit, tmp_path):
    wrong = []
    for case in list(cases_of(group))[::SHARE]:
        _, faults = server.run_case(case, kit, tmp_path / case.name)
        wrong += [f'{case.name}: {fault}' for fault in faults]
    assert not wrong


def test_a_tenth_are_valid_controls():
    cases = all_cases()
    assert sum(case.ok for case in cases) >= len(cases) / 10
    assert len(cases) >= 1000 and sum(case.malicious for case in cases) >= 300
