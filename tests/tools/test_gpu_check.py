"""`tools/gpu_check.sh` on a CPU with the tiny configs: all steps end, and those that need a card say so."""

import json

import pytest
from commands import ROOT, run

pytest.importorskip('mmagic', reason='mmagic (rass_mm[restoration]) is not installed')

SKIPPED = {'graphs'}
"""Steps that need a card."""


@pytest.mark.slow
def test_all_steps_end_on_a_cpu_and_leave_their_figures(tmp_path):
    out = tmp_path / 'figures.json'
    done = run('bash', ROOT / 'tools' / 'gpu_check.sh', out, '--tiny', '--iterations', '3', timeout=1800)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    found = json.loads(out.read_text())
    assert {name for name, result in found.items() if 'skipped' in result} == SKIPPED
    assert found['operators']['forward'] < 1e-5 and found['operators']['grid_form'] < 1e-5
    for kind in ('rass', 'scr'):
        assert found['training'][kind]['iterations'] == 3 and found['training'][kind]['iterations_per_s'] > 0
        assert found['amp'][f'{kind}, mixed']['changed'] > 0.5
    assert found['compiled']['compiled_per_s'] > 0 and found['compiled']['difference'] < 1e-3
    assert {'rass, batch 1', 'scr, batch 1'} < found['prediction'].keys()
    assert found['processes']['backend'] == 'gloo'
