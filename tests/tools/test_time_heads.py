"""`tools/time_heads.py` at tiny size."""

import pytest
from commands import python


@pytest.mark.slow
def test_parameters_and_operations_are_those_of_the_heads():
    done = python('tools/time_heads.py', 'rass/rass_scenes_tiny.py', '--layout', 'scenes-tiny', '--size', '64x96')
    assert done.returncode == 0, done.stderr[-2000:]
    name, parameters, operations, seconds = (cell.strip() for cell in done.stdout.splitlines()[2].strip('|').split('|'))
    assert name == 'rass/rass_scenes_tiny.py'
    assert float(parameters) > 0.1 and 0 < float(operations) < 0.1 and float(seconds) > 0
