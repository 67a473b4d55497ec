"""The commands and the Python code of the README, run as written in a folder that contains the files they name."""

import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path

from release.environments import rass_mm, variables
from release.steps import ReleaseError, call

LIGHT = ('doctor', 'restore', 'attention', 'fetch', 'configs')
"""Commands of the README that run in a light installation; `full` adds those that need mmseg."""
FULL = (*LIGHT, 'segment')
OPENMMLAB = {'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mmagic'}
NAMES = """
import json, sys
from rass_mm_cli.main import main
status = main(sys.argv[1:])
print('imported:', json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))
sys.exit(status)
"""


def blocks(page, language):
    """Returns the fenced blocks of a language."""
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)


def commands(page, names):
    """Returns the `rass-mm` commands of a page, as words, whose name is one of `names`."""
    found = []
    for block in blocks(page, 'bash'):
        for line in re.sub(r'\\\n\s*', ' ', block).splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ['rass-mm'] and words[1] in names:
                found.append(words[1:])
    return found


def prepared(environment, full, folder=None):
    """Creates a folder with the files that the README names, made with the base of the package. Returns the folder."""
    folder = Path(folder or tempfile.mkdtemp(prefix='readme-'))
    script = Path(__file__).with_name('files_of_readme.py')
    options = ['--segmentor'] if full else []
    call(environment / 'bin' / 'python', script, folder, *options, cwd=folder, env=variables(environment))
    return folder


def run(environment, page, full):
    """Runs the commands of the README, and in a full installation its Python code. Returns the commands that ran.

    Raises:
        ReleaseError: a command failed, or a light installation has imported a library of OpenMMLab.
    """
    folder, ran = prepared(environment, full), []
    try:
        for words in commands(page, FULL if full else LIGHT):
            output = rass_mm(environment, *words, cwd=folder)
            ran.append(words[0])
            if not full and words[0] == 'restore':
                shutil.rmtree(folder / words[2])
                _check_imports(environment, words, folder)
            if 'Traceback' in output:
                raise ReleaseError(f'rass-mm {shlex.join(words)} printed a traceback:\n{output[-2000:]}')
        if full:
            for block in blocks(page, 'python'):
                code = block.replace("device='cuda'", "device='cpu'")
                call(environment / 'bin' / 'python', '-c', code, cwd=folder, env=variables(environment))
                ran.append('Python')
        else:
            output = rass_mm(environment, 'segment', 'photos', 'x', '--checkpoint', 'x.pth', cwd=folder, expected=1)
            if 'pip install "rass_mm[segmentation]"' not in output:
                raise ReleaseError(f'rass-mm segment does not name the extra that it needs:\n{output}')
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ran


def _check_imports(environment, words, folder):
    python = environment / 'bin' / 'python'
    output = call(python, '-c', NAMES, *words, cwd=folder, env=variables(environment))
    found = set(re.findall(r'"([^"]+)"', output.rpartition('imported:')[2]))
    if found & OPENMMLAB or 'diffusers' not in found:
        raise ReleaseError(f'rass-mm {words[0]} imported {", ".join(sorted(found & OPENMMLAB))}.')


def interpreter(environment):
    """Returns the path of the Python of an environment."""
    return os.fspath(environment / 'bin' / 'python')
