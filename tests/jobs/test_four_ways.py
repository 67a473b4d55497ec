"""2,000 images in one process, in four shards, with torchrun and on Ray: the same bytes, and each image once."""

import time
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
from launched import LOCAL, on_ray, torchrun
from ray_jobs import names_in
from sharded import command_on, contents, write_images

from rass_mm_cli.main import main

pytestmark = pytest.mark.slow
COUNT = 2000


def in_one_process(kit, out):
    assert command_on(kit, 'restore', out) == 0


def in_shards(kit, out):
    for number in range(4):
        assert command_on(kit, 'restore', out, '--shards', 4, '--shard', number) == 0


def with_torchrun(kit, out):
    done = torchrun('dist_restore.sh', kit.images, out, *kit.options['restore'], timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]


def with_ray(kit, out):
    done = on_ray(kit, 'restore', out, *LOCAL, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'{COUNT} of {COUNT} images restored now' in done.stdout


NEEDS_RAY = pytest.mark.skipif(find_spec('ray') is None, reason='needs the extra [ray]')
WAYS = [(in_shards, 4), (with_torchrun, 2), pytest.param(with_ray, 1, marks=NEEDS_RAY)]
"""Ways to restore images beside that in one process, and the number of manifests that each writes."""


def made(way, kit, out, manifests):
    """Restores all images; returns the bytes of the folder, after a merge if there are several manifests."""
    start = time.monotonic()
    way(kit, out)
    print(f'{way.__name__}: {time.monotonic() - start:.0f} s')
    found = list(out.glob('manifest*.jsonl'))
    names = [name for manifest in found for name in names_in(manifest)]
    assert len(found) == manifests and len(names) == len(set(names)) == COUNT
    if manifests > 1:
        assert main(['jobs', 'merge', str(out)]) == 0
    assert len(list(out.rglob('*.png'))) == COUNT
    return contents(out)


@pytest.fixture(scope='module')
def big(kit, tmp_path_factory):
    """All images, the options of each command, and the folder that one process makes of them."""
    folder = tmp_path_factory.mktemp('big')
    big = SimpleNamespace(images=write_images(folder / 'images', COUNT), options=kit.options)
    big.one = made(in_one_process, big, folder / 'out', 1)
    return big


@pytest.mark.parametrize(('way', 'manifests'), WAYS)
def test_all_ways_make_the_same_folder_of_2000_images(way, manifests, big, tmp_path):
    assert made(way, big, tmp_path / 'out', manifests) == big.one
