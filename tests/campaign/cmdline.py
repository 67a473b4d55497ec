"""Numbers out of range, wrong devices and names, and outputs that cannot be written, for every command."""

import ctypes
import functools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from campaign.cases import Case
from campaign.kit import data_options

DATA = ' '.join(data_options('$FX/data'))
RASS, RESNET = 'rass/rass_scenes_tiny.py', 'baselines/resnet_scenes_tiny.py'
RESTORE = 'restore $FX/good.png o --adapter $FX/adapter.safetensors --base $FX/base'
TILED = f'{RESTORE} --window 64 --overlap 16'
SEGMENT = 'segment $FX/good.png o --checkpoint $FX/resnet.pth'
ATTENTION = 'attention $FX/good.png --adapter $FX/adapter.safetensors --base $FX/base --out o'
BENCHMARK = f'benchmark {RESNET} --size 64x64 --iterations 1 --warmup 1'
CURVE = f'robustness {RESNET} $FX/resnet.pth --out o --kinds jpeg --severities 1 --cfg-options {DATA} --limit 2'
MAKE_BASE = 'make-base o --scenes 2 --vae-steps 1 --vae-batch 1 --unet-steps 1 --unet-batch 1'
MAKE_LQ = 'make-lq $FX/data/img_dir/val o --workers 1'
SCENES = 'make-scenes o --train 1 --val 0 --size 64 --workers 1'
CHECK = f'check-data {RESNET} --workers 1 --cfg-options {DATA}'
TEST = f'test {RESNET} $FX/resnet.pth --work-dir work'
INTEGERS = {
    'restore': (TILED, ('window', 'overlap', 'batch', 'seed', 'max-pixels')),
    'segment': (SEGMENT, ('window', 'overlap', 'batch-size', 'max-pixels')),
    'attention': (ATTENTION, ('max-pixels',)),
    'benchmark': (BENCHMARK, ('windows', 'batch', 'iterations', 'warmup', 'threads', 'seed')),
    'robustness': (CURVE, ('limit', 'seed')),
    'check-data': (CHECK, ('limit', 'workers')),
    'make-lq': (MAKE_LQ, ('seed', 'workers', 'max-pixels')),
    'make-scenes': (SCENES, ('train', 'val', 'size', 'seed', 'workers')),
    'make-base': (
        MAKE_BASE,
        ('scenes', 'vae-steps', 'vae-batch', 'vae-crop', 'unet-steps', 'unet-batch', 'unet-crop', 'seed'),
    ),
    'random-base': ('random-base o --layout scenes-tiny', ('seed',)),
    'demo': ('demo --out o', ('seed', 'longer-steps')),
}
"""A short valid command, and its options with integers."""
NUMBERS = {
    'restore': (TILED, ('upscale',)),
    'robustness': (CURVE, ('severities',)),
    'make-base': (MAKE_BASE, ('vae-rate', 'unet-rate', 'snr-gamma')),
    'test': (f'{TEST} --cfg-options {DATA}', ('wait-time',)),
}
"""A short valid command, and its options with numbers."""
WRONG = ('nan', 'inf', '-1', 'x', "''", '1.5', '99999999999999999999999')
ZERO = {'overlap', 'seed', 'val', 'train', 'vae-steps', 'unet-steps', 'severities', 'wait-time'}
"""Options for which 0 is valid."""
NEVER = {('upscale', '1.5'), ('vae-rate', '1.5'), ('unet-rate', '1.5'), ('snr-gamma', '1.5'), ('wait-time', '1.5')}
"""Values that are valid, or whose case is listed elsewhere."""
VALID = {
    **dict.fromkeys(('window', 'vae-crop', 'size'), '64'),
    **dict.fromkeys(('unet-crop', 'overlap'), '8'),
    **dict.fromkeys(('vae-rate', 'unet-rate'), '1e-3'),
    **dict.fromkeys(('severities', 'wait-time'), '0.5'),
    'max-pixels': '100000',
    'upscale': '2',
    'snr-gamma': '5.5',
}
"""Valid values of options; the others accept 1."""
FURTHER = {
    'restore/upscale 1e9': (f'{TILED} --upscale 1e9', ('upscale',)),
    'restore/upscale 900': (f'{TILED} --upscale 900', ('upscale', 'memory')),
    'restore/overlap equal to the window': (f'{RESTORE} --window 64 --overlap 64', ('overlap',)),
    'benchmark/size 0x64': (f'{BENCHMARK} --size 0x64', ('size',)),
    'benchmark/size 64': (f'{BENCHMARK} --size 64', ('size',)),
    'benchmark/size -64x64': (f'{BENCHMARK} --size=-64x64', ('size',)),
    'benchmark/size 999936x999936': (f'{BENCHMARK} --size 999936x999936', ('size', 'memory')),
    'benchmark/size that is too large for RASS': (
        f'benchmark {RASS} --size 999936x999936 --iterations 1 --cfg-options model.backbone.base=$FX/base',
        ('size', 'memory'),
    ),
    'benchmark/batch that is too large': (f'{BENCHMARK} --batch 100000000', ('batch', 'memory')),
    'benchmark/unknown dtype': (f'{BENCHMARK} --dtype float8', ('dtype', 'float8')),
    'benchmark/variant without a name': (f'{BENCHMARK} --variant x', ('variant',)),
    'make-base/vae-crop 7': (f'{MAKE_BASE} --vae-crop 7', ('vae-crop',)),
    'make-base/vae-crop 256': (f'{MAKE_BASE} --vae-crop 256', ('vae-crop',)),
    'make-base/unet-crop 99': (f'{MAKE_BASE} --unet-crop 99', ('unet-crop',)),
    'make-base/unet-crop 3': (f'{MAKE_BASE} --unet-crop 3', ('unet-crop',)),
    'make-scenes/size 8': (f'{SCENES} --size 8', ('8',)),
    'make-scenes/size 60000': (f'{SCENES} --size 60000', ('60000',)),
    'train/option without a value': (f'train {RASS} --cfg-options x', ('cfg-options', "'x'")),
    'train/option without a key': (f'train {RASS} --cfg-options =x', ('cfg-options', '=x')),
    'train/option with open brackets': (f'train {RASS} --cfg-options model.classes=[(1,2', ('model.classes',)),
    'train/index beyond a list': (f'train {RASS} --cfg-options param_scheduler.9.end=5', ('param_scheduler', '9')),
    'train/index that is not a number': (
        f'train {RASS} --cfg-options param_scheduler.x.end=5',
        ('param_scheduler', 'x'),
    ),
    'train/key of a number': (f'train {RASS} --cfg-options train_cfg.max_iters.x=5', ('max_iters',)),
    'train/local rank': (f'train {RASS} --local-rank -1', ('local',)),
    'train/unknown launcher': (f'train {RASS} --launcher nope', ('launcher', 'nope')),
    'train/launcher without a job': (f'train {RASS} --launcher pytorch --cfg-options {DATA}', ('launcher|pytorch',)),
    'train/misspelled option': (f'train {RASS} --work-dirr w', ('work-dir',)),
    'robustness/name ..': (f'{CURVE} --name ..', ('name',)),
    'robustness/name .': (f'{CURVE} --name .', ('name',)),
    'robustness/name with a slash': (f'{CURVE} --name a/b', ('name',)),
    'robustness/name that is too long': (f'{CURVE} --name {"x" * 300}', ('xxx',)),
    'robustness/unknown kind': (f'{CURVE} --kinds fog', ('fog',)),
    'robustness/recipe version': (f'{CURVE} --recipe-version 9', ('recipe-version',)),
    'make-lq/recipe version': (f'{MAKE_LQ} --recipe-version 9', ('recipe-version',)),
    'random-base/unknown layout': ('random-base o --layout nope', ('layout', 'nope')),
    'segment/unknown mode': (f'{SEGMENT} --mode nope', ('mode', 'nope')),
    'segment/windows of whole images': (f'{SEGMENT} --mode whole --window 64', ('window',)),
    'attention/unknown layer': (f'{ATTENTION} --layers nope', ('nope',)),
    'attention/unknown class': (f'{ATTENTION} --classes nope', ('nope',)),
    'no such command': ('tran x', ('train',)),
    'no such option': ('--nope', ('nope',)),
}
DEVICES = ('meta', 'cuda:99', 'nope', 'cpu:x', 'mps')
GOOD = {
    'restore/upscale 1.5': f'{TILED} --upscale 1.5',
    'restore/on the CPU': f'{TILED} --device cpu --dtype float32 --seed 4294967295',
    'segment/windows': f'{SEGMENT} --window 32 --overlap 0 --batch-size 2',
    'attention/one layer': f'{ATTENTION} --layers mid_block',
    'benchmark/threads': f'{BENCHMARK} --threads 1 --seed 0 --batch 2',
    'robustness/severity 0': f'{CURVE} --severities 0 --name x.y',
    'check-data/limit': f'{CHECK} --limit 1',
    'make-lq/seed': f'{MAKE_LQ} --seed 7 --ext keep',
    'make-scenes/no training scenes': 'make-scenes o --train 0 --val 1 --size 64 --workers 1',
    'make-base/small crops': f'{MAKE_BASE} --vae-crop 8 --unet-crop 8 --snr-gamma 5',
    'random-base/configs': 'random-base o --layout scenes-tiny --configs-only --seed 3',
    'report/title': 'report $FX/metrics.json --title x --out o.md',
    'test/wait time': f'{TEST} --wait-time 0 --cfg-options {DATA} --out labels',
    'configs': 'configs',
    'help': 'help train',
}
OUTPUTS = {
    'train': (f'train {RESNET} --work-dir {{}} --cfg-options {DATA} train_cfg.max_iters=1', 'folder'),
    'test work-dir': (f'test {RESNET} $FX/resnet.pth --work-dir {{}} --cfg-options {DATA}', 'folder'),
    'test out': (f'{TEST} --out {{}} --cfg-options {DATA}', 'folder'),
    'test show-dir': (f'{TEST} --show-dir {{}} --cfg-options {DATA}', 'folder'),
    'segment': ('segment $FX/good.png {} --checkpoint $FX/resnet.pth', 'folder'),
    'restore folder': (TILED.replace('$FX/good.png o ', '$FX/data/img_lq {} '), 'folder'),
    'restore sheet': (f'{TILED} --sheet {{}}.png', 'file'),
    'attention': (ATTENTION.replace('--out o', '--out {}'), 'folder'),
    'robustness': (CURVE.replace('--out o', '--out {}'), 'folder'),
    'benchmark': (f'{BENCHMARK} --out {{}}', 'folder'),
    'check-data json': (f'{CHECK} --json {{}}', 'file'),
    'report': ('report $FX/metrics.json --out {}', 'file'),
    'make-lq': (MAKE_LQ.replace(' o ', ' {} '), 'folder'),
    'make-scenes': (SCENES.replace(' o ', ' {} '), 'folder'),
    'make-base': (MAKE_BASE.replace(' o ', ' {} '), 'folder'),
    'random-base': ('random-base {} --layout scenes-tiny', 'folder'),
    'demo': ('demo --out {}', 'folder'),
}
"""Commands with an output, and its kind."""


def _block(folder: Path, kit: Path) -> None:
    (folder / 'file').write_text('kept')
    for name in ('file.png', 'folder.png'):
        (folder / name).mkdir()
    (folder / 'folder').mkdir()
    (folder / 'folder' / 'other.txt').write_text('kept')


def _kept(folder: Path) -> str | None:
    for path in (folder / 'file', folder / 'folder' / 'other.txt'):
        if not path.is_file() or path.read_text() != 'kept':
            return f'{path.name} was overwritten'
    return None


def _outputs() -> Iterator[Case]:
    for name, (line, kind) in OUTPUTS.items():
        places = {'that is a file': 'file', 'below a file': 'file/o'} if kind == 'folder' else {}
        places |= {'that is a folder': 'folder'} if kind == 'file' else {}
        places |= {'below a file': 'file/o', 'in a folder that refuses files': '/proc/o'}
        for what, place in places.items():
            named = ('/proc|Read-only|permitted' if place.startswith('/proc') else place.partition('/')[0],)
            yield Case(f'cmdline/output {what}/{name}', line.format(place), named=named, prepare=_block, check=_kept)


def _numbers() -> Iterator[Case]:
    for door, (line, options) in [*INTEGERS.items(), *NUMBERS.items()]:
        for option in options:
            for value in [*WRONG, *([] if option in ZERO else ['0'])]:
                if (option, value) not in NEVER:
                    given = f'{line} --{option}={value}'
                    yield Case(f'cmdline/{option} {value.strip(chr(39))}/{door}', given, named=(option,))
            if door != 'demo':
                good = VALID.get(option, '1')
                yield Case(f'cmdline/{option} {good}/{door}', f'{line} --{option}={good}', ok=True)


NAMESPACES = 0x10020000
"""CLONE_NEWUSER and CLONE_NEWNS."""
FULL = {
    'train': (
        50_000_000,
        f'train {RESNET} --work-dir full/w --cfg-options {DATA} train_cfg.max_iters=3 train_cfg.val_interval=1000 '
        'train_dataloader.batch_size=2 train_dataloader.num_workers=0 default_hooks.checkpoint.interval=1',
    ),
    'test out': (4096, f'{TEST} --out full --cfg-options {DATA}'),
    'test show-dir': (4096, f'{TEST} --show-dir full --cfg-options {DATA}'),
    'segment': (4096, 'segment $FX/good.png full --checkpoint $FX/resnet.pth'),
}
"""Commands that write to the folder `full`, and the bytes that it can hold."""


def _filled(size: int, line: str, folder: Path) -> None:
    """Runs a command while `full` is a small file system, which only this process and its children see."""
    from rass_mm_cli.main import main

    library, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if library.unshare(NAMESPACES):
        raise OSError(ctypes.get_errno(), 'unshare')
    for name, content in {'setgroups': 'deny', 'uid_map': f'0 {user} 1', 'gid_map': f'0 {group} 1'}.items():
        Path('/proc/self', name).write_text(content)
    if library.mount(b'none', os.fsencode(folder / 'full'), b'tmpfs', 0, f'size={size}'.encode()):
        raise OSError(ctypes.get_errno(), 'mount')
    # a relative path, because options lose the spaces in the name of `folder`
    raise SystemExit(main(Case('', line).arguments(Path('kit'))))


def _small(folder: Path, kit: Path) -> None:
    (folder / 'full').mkdir()
    (folder / 'kit').symlink_to(kit)


@functools.cache
def _may_mount() -> bool:
    """Returns whether a process may mount file systems in namespaces of its own, which some machines forbid."""
    command = ['unshare', '--user', '--map-root-user', '--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt']
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _full_disks() -> Iterator[Case]:
    for name, (size, line) in FULL.items():
        command = functools.partial(_filled, size, line)
        yield Case(f'cmdline/disk that is full/{name}', command, named=('No space|disk space', 'full'), prepare=_small)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    yield from _numbers()
    for name, (line, named) in FURTHER.items():
        yield Case(f'cmdline/{name}', line, named=named)
    for door, line in {'restore': TILED, 'segment': SEGMENT, 'attention': ATTENTION, 'benchmark': BENCHMARK}.items():
        for device in DEVICES:
            yield Case(f'cmdline/device {device}/{door}', f'{line} --device {device}', named=('[dD]evice', device))
    for door, line in {'restore': TILED, 'segment': SEGMENT, 'attention': ATTENTION}.items():
        yield Case(f'cmdline/dtype float8/{door}', f'{line} --dtype float8', named=('dtype', 'float8'))
    yield from _outputs()
    if _may_mount():
        yield from _full_disks()
    for name, line in GOOD.items():
        yield Case(f'cmdline/{name}', line, ok=True)
