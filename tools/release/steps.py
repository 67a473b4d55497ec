"""Steps of a release: each prints its name, its time and its result. A fault ends the release."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path


class ReleaseError(Exception):
    """A fault that ends the release."""


def say(text):
    """Prints a line of the transcript."""
    sys.stdout.write(f'[release] {text}\n')
    sys.stdout.flush()


@contextmanager
def step(name, figures):
    """Context manager of a step. Yields a list for words that follow its name, and adds its seconds to `figures`."""
    start, words = time.monotonic(), []
    yield words
    seconds = time.monotonic() - start
    figures[name] = round(seconds, 1)
    say(f'{name}: {", ".join([*map(str, words), f"{seconds:.1f} s"])}')


def refuse(faults):
    """Raises a ReleaseError that lists the faults, if there are any."""
    if faults:
        raise ReleaseError('\n'.join(faults))


def call(*command, cwd=None, env=None, expected=0, stdin=None):
    """Runs a command and returns its output, standard error included.

    Raises:
        ReleaseError: its exit status is not the expected one. The message ends with its last lines.
    """
    command = [os.fspath(part) for part in command]
    done = subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, errors='replace')
    output = done.stdout + done.stderr
    if done.returncode != expected:
        tail = '\n'.join(output.strip().splitlines()[-20:])
        raise ReleaseError(f'{" ".join(command)} exited with status {done.returncode}, not {expected}:\n{tail}')
    return output


def written(path, content):
    """Writes a JSON file."""
    Path(path).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
