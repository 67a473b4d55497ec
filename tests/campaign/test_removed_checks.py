"""Without any single one of these checks, cases of the campaign are wrong: no check is there in vain."""

import importlib
import re
import sys

import pytest
from campaign import server
from campaign.table import all_cases

CHECKS = {
    'damage within images': ('files.damage.fault_in', 'images/JPEG middle/.*'),
    'whole archives': ('files.contents.check_archive', 'checkpoints/bytes 64 bytes in the middle/test'),
    'contents of checkpoints': ('files.contents.check_contents', 'malicious/deep lists/convert'),
    'structure of checkpoints': ('engine.structure.check_structure', 'checkpoints/dataset_meta a text/.*'),
    'finite weights': ('engine.structure.check_finite', 'checkpoints/infinity/segment'),
    'fit of a model': ('segmentation.fitting.check_model', 'checkpoints/transposed/.*'),
    'state of a training': ('segmentation.fitting.check_training', 'checkpoints/training .*/resume'),
    'header of an adapter': ('diffusion.adapter_checks.check_header', 'adapters/header (alpha null|targets 7)/restore'),
    'tensors of an adapter': ('diffusion.adapter_checks.check_tensors', 'adapters/tensors (infinity|nan|int8)/restore'),
    'types of JSON': ('files.schemas.checked', 'jsons/curve/data (list|null)'),
    'memory': ('devices.check_memory', 'cmdline/restore/upscale 900'),
    'events of YAML': ('config.yaml_data._check_events', 'malicious/yaml (bomb|deep|merge bomb|deep blocks)/.*'),
}
"""Check -> its function in `rass_mm`, and a pattern for the names of cases."""


def _unchecked(*arguments, **_):
    """Takes the place of a check: returns the content that `files.schemas.checked` returns, and None for the others."""
    return arguments[0] if len(arguments) == 4 or isinstance(arguments[0], dict | list) else None


@pytest.mark.slow
@pytest.mark.parametrize('name', CHECKS)
def test_a_case_is_wrong_without_the_check(name, kit, tmp_path, monkeypatch):
    path, pattern = CHECKS[name]
    cases = [case for case in all_cases() if re.fullmatch(pattern, case.name)][:4]
    with_check = {case.name: server.run_case(case, kit, tmp_path / 'with' / case.name)[1] for case in cases}
    assert cases and not any(with_check.values())
    module, attribute = path.rsplit('.', 1)
    check = getattr(importlib.import_module(f'rass_mm.{module}'), attribute)
    for loaded in list(sys.modules.values()):
        if getattr(loaded, '__name__', '').startswith('rass_mm') and vars(loaded).get(attribute) is check:
            monkeypatch.setattr(loaded, attribute, _unchecked)
    without = {case.name: server.run_case(case, kit, tmp_path / 'without' / case.name)[1] for case in cases}
    assert any(without.values())
