"""Jobs on a Ray cluster of two nodes, both on this machine, of which one ends."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec

import pytest
from launched import on_ray
from ray_jobs import DRIVER, environment, lines_of, names_in, processes_of, start, wait_for
from sharded import contents, write_images

from rass_mm.files.manifest import MANIFEST

pytestmark = pytest.mark.skipif(find_spec('ray') is None, reason='needs the extra [ray]')

HERE = {'RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER': '0'}
"""Variable with which both nodes have the address 127.0.0.1."""
CLUSTER = """
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False})
node = cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
input()
cluster.remove_node(node, allow_graceful=False)
input()
cluster.shutdown()
"""


@pytest.fixture
def cluster(tmp_path, temporary):
    """A cluster of two nodes: the process that runs it. A line to it ends a node, a second one the cluster."""
    env = environment({**HERE, 'TMPDIR': str(temporary), 'RAY_TMPDIR': str(temporary)})
    process = subprocess.Popen(
        [sys.executable, '-c', CLUSTER], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.address = process.stdout.readline().strip()
    yield process
    process.communicate('\n\n')
    wait_for(lambda: not processes_of(temporary), 30)


@pytest.mark.slow
def test_a_node_that_ends_loses_no_image(cluster, tmp_path):
    (tmp_path / 'driver.py').write_text(DRIVER)
    images, log, out = write_images(tmp_path / 'images', 2000), tmp_path / 'log', tmp_path / 'out'
    process = start(tmp_path / 'driver.py', images, out, log, cluster.address, env=HERE)
    wait_for(lambda: len(set(lines_of(log))) == 2, process=process)
    wait_for(lambda: len(names_in(out / MANIFEST)) > 400, process=process)
    cluster.stdin.write('\n')
    cluster.stdin.flush()
    made, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors[-3000:]
    names, calls = names_in(out / MANIFEST), lines_of(log)
    print(f'processed again: {len(calls) - 2000} of 2000, by {len(set(calls))} processes')
    assert int(made.split()[-1]) == len(names) == len(set(names)) == 2000 and len(calls) - 2000 <= 8
    one = start(tmp_path / 'driver.py', images, tmp_path / 'one', log, '')
    assert one.wait() == 0 and contents(out) == contents(tmp_path / 'one')


@pytest.mark.slow
def test_a_machine_that_does_not_see_the_job_is_named(cluster, tmp_path):
    (tmp_path / 'driver.py').write_text(DRIVER)
    images = write_images(tmp_path / 'images', 4)
    process = start(
        tmp_path / 'driver.py', images, tmp_path / 'out', tmp_path / 'log', cluster.address, 'absent', 'no', env=HERE
    )
    errors = process.communicate(timeout=600)[1]
    assert process.returncode == 1 and f'On the machine {os.uname().nodename}: ' in errors and 'absent' in errors
    assert not (tmp_path / 'out' / MANIFEST).exists()


@pytest.mark.slow
@pytest.mark.parametrize(('command', 'address'), [('make-lq', 'auto'), ('restore', 'HOST:PORT')])
def test_a_command_joins_a_cluster(command, address, cluster, kit, tmp_path, temporary):
    assert re.fullmatch(r'127\.0\.0\.1:\d+', cluster.address)
    env = {**HERE, 'RAY_TMPDIR': str(temporary)}
    if address == 'auto':
        env['RAY_ADDRESS'] = cluster.address  # others on this machine may run clusters too
    given = ('--ray', address if address == 'auto' else cluster.address, '--ray-actors', 2)
    done = on_ray(kit, command, tmp_path / 'out', *given, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Ray: 2 processes' in done.stderr and contents(tmp_path / 'out') == contents(kit.one[command])
    assert cluster.poll() is None  # the command only leaves it
    again = on_ray(kit, command, tmp_path / 'out', *given, env=env)
    assert again.returncode == 0 and re.search(r'0 of 9 images|9 images .*\(0 made now', again.stdout)


@pytest.mark.slow
def test_an_address_without_a_cluster_says_what_to_do(kit, tmp_path):
    done = on_ray(kit, 'make-lq', tmp_path / 'out', '--ray', '127.0.0.1:1', env=HERE)
    assert done.returncode == 1 and 'no Ray cluster at 127.0.0.1:1' in done.stderr and 'Traceback' not in done.stderr
    assert not list(tmp_path.glob('out/*'))
