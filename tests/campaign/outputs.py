"""Cases of output folders that an earlier run left: manifests, images, states and records, and of wrong targets."""

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from campaign.cases import Case
from campaign.faults import BROKEN_JSON, DAMAGES
from campaign.kit import data_options
from campaign.server import forked
from PIL import Image

RESTORE = 'restore in out --adapter $FX/adapter.safetensors --base $FX/base --window 64 --overlap 16'
SEGMENT = 'segment in out --checkpoint $FX/resnet.pth --config baselines/resnet_scenes_tiny.py --window 64'
AGAIN = {'make-lq': 'make-lq in out --workers 1', 'restore': RESTORE, 'segment': SEGMENT}
OUTPUT = {'make-lq': 'a.png', 'restore': 'a.png', 'segment': 'labels/a.png'}
DATA = ' '.join(data_options('$FX/data'))
MANIFEST = 'out/manifest.jsonl'
BASE = '--scenes 3 --vae-steps 2 --vae-batch 1 --vae-crop 32 --unet-steps 2 --unet-batch 1 --unet-crop 8'


def first_run(door: str, kit: Path) -> Path:
    """Returns a folder with the images `in` and the outputs `out` of a command, which is run once per kit."""
    folder = kit / 'made' / door
    if not (folder / 'ready').exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / 'in').mkdir(parents=True)
        for name, color in {'a': 'good.png', 'b': 'good.jpg'}.items():
            Image.open(kit / color).resize((64, 64)).save(folder / 'in' / f'{name}.png')
        case = Case('made', AGAIN[door])
        outcome = forked(lambda: _run(case.arguments(kit)), folder, folder / 'log', folder / 'canary')
        if outcome.status:
            raise RuntimeError(outcome.text[-2000:])
        (folder / 'ready').touch()
    return folder


def _run(arguments: list[str]) -> int:
    from rass_mm_cli.main import main

    return main(arguments)


def copied(door: str, folder: Path, kit: Path) -> None:
    """Copies the first run of a command to the working directory, as if it had been made there."""
    made = first_run(door, kit)
    for name in ('in', 'out'):
        shutil.copytree(made / name, folder / name)
    manifest = folder / MANIFEST
    before, after = (json.dumps(str(place.resolve()))[1:-1] for place in (made, folder))
    manifest.write_text(manifest.read_text().replace(before, after))


def _damaged(door: str, change: Callable[[Path], Any], folder: Path, kit: Path) -> None:
    copied(door, folder, kit)
    change(folder)


def _lines(change: Callable[[list[str]], Any], folder: Path) -> None:
    path = folder / MANIFEST
    lines = path.read_text().splitlines()
    lines = change(lines) or lines
    path.write_bytes('\n'.join(lines).encode('utf-8', 'surrogateescape') + b'\n')


def _header(key: str, value: Any, folder: Path) -> None:
    def change(lines: list[str]) -> None:
        header = json.loads(lines[0])
        if value is ...:
            header.pop(key)
        else:
            header[key] = value
        lines[0] = json.dumps(header)

    _lines(change, folder)


def _line(value: str, folder: Path) -> None:
    def change(lines: list[str]) -> None:
        lines[1] = value

    _lines(change, folder)


def _line_key(key: str, value: Any, folder: Path) -> None:
    def change(lines: list[str]) -> None:
        content = json.loads(lines[1])
        if value is ...:
            content.pop(key)
        else:
            content[key] = value
        lines[1] = json.dumps(content)

    _lines(change, folder)


def _to_folder(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()


def _same(door: str, folder: Path) -> str | None:
    """Compares the outputs with those of the first run, which are in the folder `first`."""
    made = folder / 'first'
    for path in sorted(made.rglob('*.png')):
        again = folder / 'out' / path.relative_to(made)
        if not again.is_file() or again.read_bytes() != path.read_bytes():
            return f'{again.name} was not made again'
    lines = (folder / MANIFEST).read_text().splitlines()
    return None if len(lines) >= 3 and all(isinstance(json.loads(line), dict) for line in lines) else 'manifest'


def _kept_first(door: str, change: Callable[[Path], Any], folder: Path, kit: Path) -> None:
    copied(door, folder, kit)
    shutil.copytree(folder / 'out', folder / 'first')
    change(folder)


def _source_changed(folder: Path) -> None:
    Image.open(folder / 'in' / 'a.png').rotate(180).save(folder / 'in' / 'a.png')
    os.utime(folder / 'in' / 'a.png', ns=(1, 1))


def _differs(output: str, folder: Path) -> str | None:
    same = (folder / 'out' / output).read_bytes() == (folder / 'first' / output).read_bytes()
    return 'the output of a changed source was kept' if same else None


def _replaced(output: str, folder: Path) -> None:
    path = folder / 'out' / output
    image = Image.open(path).rotate(180)
    path.unlink()
    image.save(path)


def _kept(output: str, folder: Path) -> str | None:
    same = (folder / 'out' / output).read_bytes() == (folder / 'first' / output).read_bytes()
    return 'a changed output was replaced' if same else None


WRONG_LINES = {
    'text': '"a.png"',
    'list': '[1, 2]',
    'number': '7',
    'null': 'null',
    'empty': '',
    'cut': '{"image": "a.pn',
    'without a name': '{"output": "a.png"}',
    'name a number': '{"image": 7}',
    'binary': '\udcff\udcfe\x00',
    'deep': '[' * 50_000,
}


def _manifests() -> Iterator[Case]:
    for door, command in AGAIN.items():
        for damage, data in BROKEN_JSON.items():
            change = functools.partial(_damaged, door, lambda folder, data=data: (folder / MANIFEST).write_bytes(data))
            yield Case(f'jsons/manifest {damage}/{door}', command, named=('manifest',), prepare=change)
        yield Case(
            f'jsons/manifest a folder/{door}',
            command,
            named=('manifest',),
            prepare=functools.partial(_damaged, door, _to_folder),
        )
        keys = ('fingerprint', 'seed') if door == 'make-lq' else ('format', 'source', 'options', 'model')
        for key in keys:
            for value in (None, 7, 'x', [1], {'a': 1}, ...):
                if value == 7 and key == 'seed':
                    continue
                shown = 'absent' if value is ... else json.dumps(value)
                prepare = functools.partial(_damaged, door, functools.partial(_header, key, value))
                yield Case(f'jsons/manifest header {key} {shown}/{door}', command, named=('manifest',), prepare=prepare)
        for name, line in WRONG_LINES.items():
            prepare = functools.partial(_kept_first, door, functools.partial(_line, line))
            check = functools.partial(_same, door)
            yield Case(f'jsons/manifest line {name}/{door}', command, ok=True, prepare=prepare, check=check)
        numbers = {'make-lq': 'seed sha256 parameters', 'restore': 'size mtime_ns', 'segment': 'width height pixels'}[
            door
        ]
        for key in numbers.split():
            for value in (None, 'x', ...):
                shown = 'absent' if value is ... else json.dumps(value)
                prepare = functools.partial(_kept_first, door, functools.partial(_line_key, key, value))
                check = functools.partial(_same, door)
                name = f'jsons/manifest line {key} {shown}/{door}'
                yield Case(name, command, ok=True, prepare=prepare, check=check)


def _images() -> Iterator[Case]:
    for door, command in AGAIN.items():
        output = OUTPUT[door]
        for damage, change in DAMAGES.items():

            def damaged(folder: Path, change: Callable = change, output: str = output) -> None:
                path = folder / 'out' / output
                path.write_bytes(change(path.read_bytes()))

            prepare = functools.partial(_kept_first, door, damaged)
            check = functools.partial(_same, door)
            yield Case(f'jsons/output {damage}/{door}', command, ok=True, prepare=prepare, check=check)
        absent = functools.partial(_kept_first, door, lambda folder, output=output: (folder / 'out' / output).unlink())
        check = functools.partial(_same, door)
        yield Case(f'jsons/output absent/{door}', command, ok=True, prepare=absent, check=check)
        whole = functools.partial(_kept_first, door, lambda folder: None)
        yield Case(f'jsons/output whole/{door}', command, ok=True, prepare=whole, check=check)
        changed = functools.partial(_kept_first, door, functools.partial(_replaced, output))
        kept, error = functools.partial(_kept, output), door == 'make-lq'
        named = ('a.png',) if error else ()
        yield Case(f'jsons/output changed/{door}', command, ok=not error, named=named, prepare=changed, check=kept)
        source = functools.partial(_kept_first, door, _source_changed)
        differs = functools.partial(_differs, output)
        yield Case(f'jsons/source changed/{door}', command, ok=True, prepare=source, check=differs)
        for damage in ('empty', 'first half', 'web page'):

            def broken(folder: Path, change: Callable = DAMAGES[damage]) -> None:
                path = folder / 'in' / 'a.png'
                path.write_bytes(change(path.read_bytes()))

            prepare = functools.partial(_kept_first, door, broken)
            yield Case(f'jsons/source {damage}/{door}', command, named=('a.png',), prepare=prepare)


def tokens(change: Callable[[Path], Any], folder: Path) -> None:
    """Computes class tokens, damages their cache, and computes them again."""
    import torch

    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.prompts import ClassTokens

    base = read_base('base')
    first = ClassTokens(base, ['sky', 'car'], cache='cache').tokens
    change(next(Path('cache').rglob('*.safetensors')))
    again = ClassTokens(base, ['sky', 'car'], cache='cache').tokens
    third = ClassTokens(base, ['sky', 'car'], cache='cache').tokens
    if not torch.equal(first, again) or not torch.equal(first, third):
        raise RuntimeError('other tokens')


def _stored(key: str, change: Callable, path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensor = change(load_file(path)['tokens'])
    path.unlink()
    save_file({key: tensor.contiguous()}, path)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cache_is_a_file(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.write_text('mine')


def _caches() -> Iterator[Case]:
    changes: dict[str, Callable[[Path], Any]] = {
        name: lambda path, change=change: path.write_bytes(change(path.read_bytes()))
        for name, change in DAMAGES.items()
    }
    changes |= {
        'unchanged': lambda path: None,
        'another key': functools.partial(_stored, 'x', lambda tokens: tokens),
        'fewer tokens': functools.partial(_stored, 'tokens', lambda tokens: tokens[:-1]),
        'narrower tokens': functools.partial(_stored, 'tokens', lambda tokens: tokens[:, :5]),
        'one dimension': functools.partial(_stored, 'tokens', lambda tokens: tokens[0]),
        'half precision': functools.partial(_stored, 'tokens', lambda tokens: tokens.half()),
        'integers': functools.partial(_stored, 'tokens', lambda tokens: tokens.int()),
        'nan': functools.partial(_stored, 'tokens', lambda tokens: tokens * float('nan')),
        'a folder': _as_folder,
        'the cache is a file': _cache_is_a_file,
    }
    for name, change in changes.items():
        call = functools.partial(tokens, change)
        yield Case(f'jsons/cached tokens {name}/tokens', call, ok=True, prepare=_linked_base)


def _linked_base(folder: Path, kit: Path) -> None:
    (folder / 'base').symlink_to(kit / 'base')


def _key() -> str:
    from rass_mm.demo.base.recipe import BaseRecipe

    words = BASE.replace('--', '').replace('-', '_').split()
    return BaseRecipe(**{name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}).key(None, None)


def _base_record(content: bytes, folder: Path, kit: Path) -> None:
    (folder / 'o').mkdir()
    (folder / 'o' / 'training.json').write_bytes(content)


def _finished_base(folder: Path, kit: Path) -> None:
    _base_record(json.dumps({'key': _key(), 'losses': {'vae_loss': 0.5}}).encode(), folder, kit)


def _base_state(content: bytes, folder: Path, kit: Path) -> None:
    place = folder / 'cache' / 'bases' / _key()
    place.mkdir(parents=True)
    (place / 'vae.pt').write_bytes(content)


def _bases() -> Iterator[Case]:
    command, cache = f'make-base o {BASE}', {'RASS_MM_CACHE': 'cache'}
    records = {**BROKEN_JSON, 'no losses': b'{"key": "x"}', 'a key of numbers': b'{"key": 7, "losses": {}}'}
    for name, content in records.items():
        prepare = functools.partial(_base_record, content)
        named = (r'training\.json',)
        yield Case(f'jsons/training.json {name}/make-base', command, named=named, prepare=prepare, environment=cache)
    states = {'text': b'hello', 'empty': b'', 'zip': b'PK\x03\x04' + bytes(50), 'pickle': b"cos\nsystem\n(S'x'\ntR."}
    for name, content in states.items():
        prepare = functools.partial(_base_state, content)
        more = {'environment': cache, 'malicious': name == 'pickle'}
        yield Case(f'jsons/vae.pt {name}/make-base', command, named=(r'vae\.pt',), prepare=prepare, **more)
    yield Case('jsons/training.json of this base/make-base', command, ok=True, prepare=_finished_base)


LAST = {
    'empty': b'',
    'binary': b'\x00\x01',
    'not UTF-8': b'\xff\xfe',
    'absent file': b'work/iter_9.pth',
    'a folder': b'.',
    'long': b'x' * 100_000,
}


def _last(content: bytes | None, folder: Path, kit: Path) -> None:
    path = folder / 'work' / 'last_checkpoint'
    path.parent.mkdir()
    path.mkdir() if content is None else path.write_bytes(content)


def _resumed() -> Iterator[Case]:
    options = f'{DATA} train_cfg.max_iters=1'
    command = f'train baselines/resnet_scenes_tiny.py --work-dir work --resume --cfg-options {options}'
    for name, content in {**LAST, 'itself a folder': None}.items():
        prepare = functools.partial(_last, content)
        yield Case(f'jsons/last_checkpoint {name}/train', command, named=('last_checkpoint',), prepare=prepare)


def _scenes() -> Iterator[Case]:
    command = 'make-scenes data --train 1 --val 1 --size 32 --workers 1'

    def prepare(content: bytes, folder: Path, kit: Path) -> None:
        (folder / 'data').mkdir()
        (folder / 'data' / 'scenes.json').write_bytes(content)

    def settings(folder: Path, kit: Path) -> None:
        (folder / 'demo').mkdir()
        (folder / 'demo' / 'demo.json').write_bytes(b'[1]')

    for name, content in BROKEN_JSON.items():
        made = functools.partial(prepare, content)
        yield Case(f'jsons/scenes.json {name}/make-scenes', command, named=(r'scenes\.json',), prepare=made)
    yield Case('jsons/demo.json a list/demo', 'demo --out demo', named=(r'demo\.json',), prepare=settings)


TARGETS = {
    'make-lq': 'make-lq $FX/data/img_dir/val target --workers 1',
    'restore': 'restore $FX/data/img_dir/val target --adapter $FX/adapter.safetensors --base $FX/base',
    'segment': 'segment $FX/good.png target --checkpoint $FX/resnet.pth',
    'attention': 'attention $FX/good.png --adapter $FX/adapter.safetensors --base $FX/base --out target',
    'make-base': f'make-base target {BASE}',
    'make-scenes': 'make-scenes target --train 1 --val 1 --size 32 --workers 1',
    'random-base': 'random-base target --layout scenes-tiny',
    'robustness --plot': 'robustness --plot $FX/curve.json --out target',
    'demo': 'demo --out target',
    'train': f'train baselines/resnet_scenes_tiny.py --work-dir target --cfg-options {DATA}',
}


def _file(folder: Path, kit: Path) -> None:
    (folder / 'target').write_text('mine')


def _unharmed(folder: Path) -> str | None:
    return None if (folder / 'target').read_text() == 'mine' else 'the file was changed'


def _targets() -> Iterator[Case]:
    for door, command in TARGETS.items():
        yield Case(f'jsons/target a file/{door}', command, named=('target',), prepare=_file, check=_unharmed)
        place = '/proc/version/target'  # a place that no user can write
        yield Case(f'jsons/target below a file/{door}', command.replace('target', place), named=('/proc/version',))
        place = '/proc/nothing'
        yield Case(f'jsons/target not writable/{door}', command.replace('target', place), named=('/proc',))
    report = 'report $FX/metrics.json --out'

    def folder_of(name: str) -> Callable[[Path, Path], None]:
        return lambda folder, kit: (folder / name).mkdir()

    yield Case('jsons/target a folder/report', f'{report} r.md', named=(r'r\.md',), prepare=folder_of('r.md'))
    yield Case('jsons/target not writable/report', f'{report} /proc/nothing/r.md', named=('/proc',))
    yield Case(
        'jsons/target new folder/report', f'{report} new/r.md', ok=True, check=lambda f: _is_file(f / 'new/r.md')
    )


def _is_file(path: Path) -> str | None:
    return None if path.is_file() else f'{path.name} is missing'


def output_cases() -> Iterator[Case]:
    """Yields the cases of this module."""
    for part in (_manifests, _images, _caches, _bases, _resumed, _scenes, _targets):
        yield from part()
