"""Finished images of a manifest."""

import pytest

from rass_mm.files.manifest import checksum
from rass_mm.inference.manifest import CHECKSUMS, Manifest, source_line
from rass_mm.inference.plan import Plan, Task


@pytest.fixture
def task(tmp_path):
    """An image with two outputs."""
    paths = [tmp_path / name for name in ('a.jpg', 'a.png', 'a.csv')]
    for path in paths:
        path.write_bytes(path.name.encode())
    return Task('a.jpg', 'a.png', paths[0], paths[1], (paths[2],))


SUMS = [checksum(b'a.png'), checksum(b'a.csv')]


@pytest.mark.parametrize(
    ('recorded', 'finished'),
    [(SUMS, True), (SUMS[:1], False), ([], False), ([*SUMS, 1], False), (SUMS[::-1], False), (None, False)],
)
def test_a_line_without_the_checksums_of_all_outputs_is_not_finished(recorded, finished, task, tmp_path, caplog):
    out = tmp_path / 'out'
    out.mkdir()
    manifest = Manifest(Plan((tmp_path,), out, []), 'test', {}, {})
    manifest.lines[task.name] = {**source_line(task), **({} if recorded is None else {CHECKSUMS: recorded})}
    assert manifest.has(task) is finished
    incomplete = recorded is not None and len(recorded) != 2
    assert ('is incomplete' in caplog.text) is incomplete
