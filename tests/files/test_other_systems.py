"""Windows and macOS, simulated: no fcntl, no fork, open files, reserved names, names that differ in case, no links.

The simulation replaces what Python reports on those systems. It does not replace a run there.
"""

import ast
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, python, run
from PIL import Image

from rass_mm import devices, parallel
from rass_mm.errors import ConfigError, DataError
from rass_mm.files import atomic, portable, temporary
from rass_mm.files.containers import members, search
from rass_mm.files.locks import held, holder_of
from rass_mm.inference.plan import plan_files

WITHOUT = """
import multiprocessing, os, sys
sys.modules['fcntl'] = None
for name in ('fork', 'forkpty', 'wait4', 'sched_getaffinity', 'getuid', 'killpg'):
    if hasattr(os, name):
        delattr(os, name)
multiprocessing.get_all_start_methods = lambda: ['spawn']
import multiprocessing.context
multiprocessing.context.BaseContext.set_forkserver_preload = None
from rass_mm_cli.main import main
if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
"""
"""Runs a command of `rass-mm` as on a system that has none of these."""


@pytest.fixture
def windows(monkeypatch):
    monkeypatch.setattr(portable, 'is_windows', lambda: True)
    monkeypatch.setattr(members, 'is_windows', lambda: True)
    monkeypatch.setattr(portable, 'PAUSE', 0)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / 'without.py'
    path.write_text(WITHOUT)
    return path


@pytest.mark.slow
def test_workers_start_without_fork_and_fcntl(program, scenes, tmp_path):
    folder, outputs = scenes / 'img_dir' / 'val', []
    for workers in ('1', '2'):
        out = tmp_path / f'lq{workers}'
        done = python(program, 'make-lq', folder, out, '--workers', workers)
        assert done.returncode == 0, done.stderr[-2000:]
        outputs.append({file.name: file.read_bytes() for file in out.glob('*.png')})
    assert outputs[0] == outputs[1] and len(outputs[0]) == 4
    assert not [file for file in tmp_path.rglob('*') if atomic.MARK in file.name]


@pytest.mark.slow
def test_restoring_runs_without_them_and_with_an_old_code_page(program, adapter, tiny_base, tmp_path):
    photo = tmp_path / 'фото →.png'
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(photo)
    given = ('--adapter', adapter, '--base', tiny_base)
    old = {'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'}
    done = python(program, 'restore', photo, tmp_path / 'out', *given, env=old)
    assert done.returncode == 0 and (tmp_path / 'out' / photo.name).is_file(), done.stderr[-2000:]
    done = python(program, 'attention', photo, '--out', tmp_path / 'maps', *given, env=old)
    assert done.returncode == 0 and len(list((tmp_path / 'maps').glob('*.png'))) == 1, done.stderr[-2000:]


def test_locks_are_left_out_where_there_are_none(monkeypatch, tmp_path):
    for module in (atomic, temporary):
        monkeypatch.setattr(module, 'fcntl', None)
    atomic.write_text(tmp_path / 'a.txt', 'ä')
    atomic.remove_abandoned(tmp_path / 'a.txt')
    with temporary.temporary_folder('x-', tmp_path) as folder, temporary.temporary_folder('x-', tmp_path) as other:
        assert folder.is_dir() and other.is_dir()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_written_or_removed_while_held_still_holds(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_text', refuse)
        patch.setattr(Path, 'unlink', refuse)
        with held(tmp_path):
            assert holder_of(tmp_path, '.rass_mm.lock') == 'another command'
            with pytest.raises(DataError, match='in use by another command'), held(tmp_path):
                pass
    with held(tmp_path):
        assert holder_of(tmp_path, '.rass_mm.lock').startswith(f'process {os.getpid()}')


def failing_replace(times):
    """`os.replace` that fails like that of Windows while the target is open."""
    real, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) <= times:
            raise PermissionError(13, 'The process cannot access the file', os.fspath(source), None, os.fspath(target))
        real(source, target)

    return replace, calls


def test_a_target_that_is_open_for_a_moment_is_replaced(windows, monkeypatch, tmp_path):
    replace, calls = failing_replace(2)
    monkeypatch.setattr(portable.os, 'replace', replace)
    atomic.write_text(tmp_path / 'a.txt', 'new')
    assert (tmp_path / 'a.txt').read_text() == 'new' and len(calls) == 3


def test_a_target_that_stays_open_is_named_and_keeps_its_content(windows, monkeypatch, tmp_path):
    (tmp_path / 'a.txt').write_text('old')
    monkeypatch.setattr(portable.os, 'replace', failing_replace(99)[0])
    with pytest.raises(PermissionError) as caught:
        atomic.write_text(tmp_path / 'a.txt', 'new')
    assert caught.value.filename == str(tmp_path / 'a.txt') and 'open in another program' in str(caught.value)
    with pytest.raises(PermissionError, match='folder'), atomic.atomic_folder(tmp_path / 'folder'):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ['a.txt'] and (tmp_path / 'a.txt').read_text() == 'old'


def test_elsewhere_an_error_of_a_renaming_is_not_repeated(monkeypatch, tmp_path):
    replace, calls = failing_replace(99)
    monkeypatch.setattr(portable.os, 'replace', replace)
    with pytest.raises(PermissionError):
        atomic.write_text(tmp_path / 'a.txt', 'new')
    assert len(calls) == 1


RESERVED = [
    'CON',
    'nul.png',
    'Com1.tar.gz',
    'aux ',
    'LPT9.x',
    'PRN',
    'a:b',
    'what?.png',
    'a\\b',
    'dot.',
    'space ',
    '\x07',
]
ALLOWED = ['con1', 'COM', 'null.png', 'a.b', '.hidden', 'COM10', 'ä b.png', 'lpt', 'console.log']


@pytest.mark.parametrize('name', RESERVED)
def test_names_that_windows_cannot_have_are_refused_there_only(name, monkeypatch):
    assert members.plain_name(f'folder/{name}', Path('a.tar')) == f'folder/{name}'
    monkeypatch.setattr(members, 'is_windows', lambda: True)
    with pytest.raises(DataError, match=r'a\.tar: the name .* of a member .*[Ww]indows'):
        members.plain_name(f'folder/{name}', Path('a.tar'))


@pytest.mark.parametrize('name', ALLOWED)
def test_other_names_are_accepted_on_windows(name, windows):
    assert portable.windows_fault(name) is None and members.plain_name(name, Path('a.tar')) == name


def test_photos_that_differ_in_case_only_do_not_overwrite_each_other(monkeypatch, tmp_path):
    (tmp_path / 'in').mkdir()
    for name in ('a.png', 'A.png'):
        Image.new('RGB', (8, 8)).save(tmp_path / 'in' / name)
    assert len(plan_files(tmp_path / 'in', tmp_path / 'out').tasks) == 2
    monkeypatch.setattr(search, '_ignores_case', lambda folder: True)
    with pytest.raises(DataError, match='differ in upper and lower case only'):
        plan_files(tmp_path / 'in', tmp_path / 'out')


def test_files_are_copied_where_links_are_not_permitted(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError(1314, 'A required privilege is not held by the client')

    (tmp_path / 'a').write_bytes(b'content')
    portable.linked_or_copied(tmp_path / 'a', tmp_path / 'link')
    monkeypatch.setattr(Path, 'symlink_to', refuse)
    portable.linked_or_copied(tmp_path / 'a', tmp_path / 'copy')
    assert (tmp_path / 'link').is_symlink() and not (tmp_path / 'copy').is_symlink()
    assert (tmp_path / 'copy').read_bytes() == b'content'


@pytest.mark.slow
def test_pools_use_spawn_where_there_is_no_fork_server(monkeypatch):
    monkeypatch.setenv('RASS_MM_PLUGIN', '0')  # the processes start faster
    monkeypatch.setattr(multiprocessing, 'get_all_start_methods', lambda: ['spawn'])
    refuse = property(lambda self: pytest.fail('there is no fork server'))
    monkeypatch.setattr(multiprocessing.context.BaseContext, 'set_forkserver_preload', refuse)
    assert sorted(parallel.run_jobs(abs, [-1, -2], 2)) == [1, 2]


def test_commands_are_timed_without_wait4(monkeypatch, tmp_path):
    monkeypatch.delattr(os, 'wait4')
    assert parallel.run_logged([sys.executable, '-c', 'print("ok")'], tmp_path / 'log', 'x') > 0
    assert (tmp_path / 'log').read_text() == 'ok\n'
    with pytest.raises(parallel.RassError, match='exit status 3'):
        parallel.run_logged([sys.executable, '-c', 'raise SystemExit(3)'], tmp_path / 'log', 'x')


def test_cores_and_memory_are_found_without_linux(monkeypatch):
    monkeypatch.delattr(os, 'sched_getaffinity')
    assert parallel.core_count() == os.cpu_count()
    linux, files = devices.available_memory(), Path.read_text

    def read(path, *args, **kwargs):
        if path.is_relative_to('/proc'):
            raise FileNotFoundError(path)
        return files(path, *args, **kwargs)

    monkeypatch.setattr(Path, 'read_text', read)
    monkeypatch.setattr(devices, 'LIMITS', (Path('/no/such/file'),) * 2)
    assert devices.available_memory() >= 0.5 * linux


@pytest.fixture
def apple(monkeypatch):
    """A machine with a GPU of Apple and none of NVIDIA. Its tensors are on the CPU."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    real = torch.empty
    monkeypatch.setattr(devices.torch, 'empty', lambda *size, device=None: real(*size))


def test_a_gpu_of_apple_is_chosen_and_computes_without_float64(apple, monkeypatch):
    device, waited = devices.chosen_device(None), []
    assert device == torch.device('mps') and devices.chosen_device('cpu') == torch.device('cpu')
    assert devices.exact_dtype(device) is torch.float32 and devices.default_dtype(device) == 'float32'
    monkeypatch.setattr(torch.mps, 'synchronize', lambda: waited.append(True))
    devices.synchronise(device)
    assert waited
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert devices.chosen_device(None) == torch.device('cuda')


def test_without_it_the_cpu_is_chosen_and_mps_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    if torch.backends.mps.is_available():
        pytest.skip('this machine has a GPU of Apple')
    assert devices.chosen_device(None) == torch.device('cpu')
    with pytest.raises(ConfigError, match="Device 'mps' cannot be used"):
        devices.chosen_device('mps')


def texts_without_encoding():
    """Calls that read or write text in the encoding of the system."""
    for file in [*(ROOT / 'rass_mm').rglob('*.py'), *(ROOT / 'rass_mm_cli').rglob('*.py')]:
        for call in ast.walk(ast.parse(file.read_text())):
            if not isinstance(call, ast.Call) or {word.arg for word in call.keywords} & {'encoding'}:
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else None
            if name == 'read_text' or (name == 'write_text' and not isinstance(call.args[0], ast.Constant)):
                yield f'{file.name}:{call.lineno}'


def test_text_files_have_the_same_encoding_on_all_systems():
    assert list(texts_without_encoding()) == []


def test_no_module_needs_a_library_of_one_system():
    """Modules that only Unix has are imported in a `try`, or not at all."""
    unix = {'fcntl', 'resource', 'pwd', 'grp', 'termios', 'tty', 'pty', 'syslog'}
    done = run('git', 'ls-files', 'rass_mm/*.py', 'rass_mm_cli/*.py')
    for name in done.stdout.split():
        for node in ast.parse((ROOT / name).read_text()).body:
            names = [part.name for part in node.names] if isinstance(node, ast.Import) else []
            assert not unix & set(names), name
