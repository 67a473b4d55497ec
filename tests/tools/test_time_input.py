"""`tools/time_input.py` on a few samples."""

import pytest
from commands import python


@pytest.mark.slow
def test_steps_and_operations_add_up():
    done = python('tools/time_input.py', 'rass/rass_scenes_tiny.py', '--samples', '4', '--images', '2')
    assert done.returncode == 0, done.stderr[-2000:]
    cells = [line.strip('| ').split('|') for line in done.stdout.splitlines() if line.startswith('|')][2:]
    times = {name.strip(): float(value) for name, value in cells}
    inside = sum(value for name, value in times.items() if name.startswith('in LQDegradation: '))
    steps = sum(value for name, value in times.items() if not name.startswith('in LQDegradation: ') and name != 'all')
    assert 0 < inside <= times['LQDegradation'] + 0.1 and abs(steps - times['all']) < 0.2
    assert {'in LQDegradation: jpeg', 'in LQDegradation: resize'} <= set(times)
    assert '16 images in 0.3 s need' in done.stdout
