"""Which images belong to a shard."""

import hashlib
import os
import subprocess
import sys

import pytest

from rass_mm.errors import ConfigError
from rass_mm.jobs.shard import Shard, shards_in

NAMES = [f'folder {number % 7}/image {number}.jpg' for number in range(2000)]


def test_every_image_belongs_to_exactly_one_shard_and_shards_are_even():
    shards = [Shard(number, 8) for number in range(8)]
    owners = [[shard.number for shard in shards if shard.has(name)] for name in NAMES]
    assert all(len(found) == 1 for found in owners)
    sizes = [owners.count([number]) for number in range(8)]
    assert min(sizes) > 200 and max(sizes) < 300


def test_the_choice_is_a_hash_of_the_name_in_every_process():
    expected = [name for name in NAMES if int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 3 == 1]
    assert [name for name in NAMES if Shard(1, 3).has(name)] == expected
    script = f'from rass_mm.jobs.shard import Shard; print([Shard(1, 3).has(name) for name in {NAMES[:50]!r}])'
    for seed in ('1', '2'):
        env = {**os.environ, 'PYTHONHASHSEED': seed, 'RASS_MM_PLUGIN': '0'}
        found = subprocess.run([sys.executable, '-c', script], env=env, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == str([name in expected for name in NAMES[:50]])


def test_names_that_are_not_utf8_have_a_shard():
    name = os.fsdecode(b'caf\xe9.png')
    assert sum(Shard(number, 5).has(name) for number in range(5)) == 1


@pytest.mark.parametrize(
    ('number', 'count', 'said'),
    [
        (4, 4, r'no shard 4 of 4\. The first shard is 0 and the last is 3'),
        (-1, 4, 'no shard -1 of 4'),
        (0, 0, 'number of shards is 0'),
        (0, 100_001, 'from 1 to 100000'),
    ],
)
def test_numbers_out_of_range_are_refused(number, count, said):
    with pytest.raises(ConfigError, match=said):
        Shard(number, count)


def test_shards_are_found_by_their_manifests_and_marks(tmp_path):
    for name in (Shard(10, 12).manifest, Shard(2, 12).mark, 'manifest.jsonl', 'manifest.shard-12-of-12.jsonl', 'a.png'):
        (tmp_path / name).touch()
    assert shards_in(tmp_path) == [Shard(2, 12), Shard(10, 12)] and shards_in(tmp_path / 'absent') == []
