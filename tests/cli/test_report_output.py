"""`rass-mm report --out` overwrites none of its records."""

import json

from rass_mm_cli.main import main


def test_a_record_is_not_overwritten(tmp_path, capsys):
    file = tmp_path / 'metrics.json'
    file.write_text(json.dumps({'kind': 'test', 'config': 'a.py', 'protocol': '', 'metrics': {}, 'command': ''}))
    before = file.read_bytes()
    (tmp_path / 'linked').symlink_to(tmp_path)
    for out in (file, tmp_path / 'linked' / 'metrics.json'):
        assert main(['report', str(file), '--out', str(out)]) == 1
        assert '--out would overwrite the input' in capsys.readouterr().err and file.read_bytes() == before
