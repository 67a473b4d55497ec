"""Runs jobs on Ray in processes of their own, and observes them."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from commands import ROOT, environment_of

DRIVER = """
import sys
from functools import partial
from pathlib import Path
from sharded import logged
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.jobs.ray.pool import RayPool
from rass_mm.jobs.shard import Shard

images, out, log, address, *model = sys.argv[1:]
pool = RayPool(address, 2) if address and not address.isdigit() else None
shard = Shard(int(address), 2) if address.isdigit() else None
given = (images, out, partial(logged, log, *model), RestoreOptions(window=32, overlap=0))
print(restore_files(*given, shard=shard, pool=pool).made)
"""


def environment(env=None):
    """The environment of a process that runs or takes part in `DRIVER`; `env` has further variables."""
    path = f'{ROOT}{os.pathsep}{ROOT / "tests"}'
    return environment_of({'PYTHONPATH': path, 'RASS_MM_PLUGIN': '0', **(env or {})})


def start(script, *arguments, env=None):
    """Starts a script in the background."""
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.Popen(command, env=environment(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def processes_of(folder):
    """The ids of the processes that have this folder for temporary files, i.e. of a command and all that it started."""
    found = set()
    for process in Path('/proc').iterdir():
        with suppress(OSError):
            if process.name.isdigit() and f'TMPDIR={folder}\0' in (process / 'environ').read_text(errors='replace'):
                found.add(int(process.name))
    return found


def wait_for(condition, seconds=600, process=None):
    """Waits for a condition, while a process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


def names_in(manifest):
    return [json.loads(line)['image'] for line in lines_of(manifest)[1:]]


def processor_seconds(folder, seen):
    """Adds the CPU seconds of the processes of a folder to `seen`, by process, and returns the sum."""
    for number in processes_of(folder):
        with suppress(OSError):
            fields = Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()
            seen[number] = (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
    return sum(seen.values())
