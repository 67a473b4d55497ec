"""Files that try to run code, to read or write elsewhere, or to exhaust the machine, at every door."""

import functools
import http.server
import io
import itertools
import json
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from campaign import pickles
from campaign.cases import Case
from campaign.doors import BASED, DATA, DOORS, MMENGINE, RASS, RESTORE, RUN, at, copy_base, write
from campaign.pickles import FORMS, text

CODE = pickles.SOURCE.decode()
ADAPTERS = ('restore', 'attention', 'scr_adapter')
SLOW = ('test', 'test RASS', 'load_from', 'resume', 'fine_tune', 'init_cfg', 'robustness', 'scr_adapter')
QUICK = tuple(door for door in DOORS if door not in (*SLOW, 'CheckpointLoader'))


EVERYWHERE = ('laughs of lists', 'list that contains itself', 'deep lists')
"""Structures that are given to every door: what reads them fails in another place at each."""


def _turns() -> Iterator[str]:
    """Yields all doors but the loader again and again, the slow ones less often."""
    quick, slow = itertools.cycle(QUICK), itertools.cycle(SLOW)
    while True:
        yield from (next(quick), next(quick), next(quick), next(slow))


def _attack(name: str, door: str, data: bytes | Callable[[], bytes], suffix: str = 'pth') -> Case:
    kind, _, _ = name.partition('/')
    file = f'given.{suffix}'
    prepare = functools.partial(write, file, data)
    named = () if door in ADAPTERS and suffix == 'pth' else ('given',)
    return Case(f'malicious/{name}/{door}', at(door, file), named=named, prepare=prepare, malicious=True)


def _pickles() -> Iterator[Case]:
    """Yields each pickle in several forms, at mmengine's loader and at the other doors in turn."""
    turn, forms = _turns(), itertools.cycle([*FORMS, 'zip'])
    for name, data in pickles.running():
        form = next(forms)
        yield _attack(f'{name} {form}', 'CheckpointLoader', FORMS[form](data))
        form = next(forms)
        yield _attack(f'{name} {form}', next(turn), FORMS[form](data))
    for name, data in pickles.senseless():
        yield _attack(f'{name} zip', 'CheckpointLoader', FORMS['zip'](data))
        door = next(turn)
        yield _attack(f'{name} plain', door, data)
        yield _attack(f'{name} zip', 'convert', FORMS['zip'](data))
    for name, data in pickles.strange_tensors():
        for door in dict.fromkeys(('CheckpointLoader', next(turn))):
            yield _attack(name, door, pickles.zipped(data))
    for name, data in pickles.large_structures():
        doors = ('CheckpointLoader', 'convert', *(next(turn) for _ in range(3)))
        for door in dict.fromkeys((*doors, *(DOORS if name in EVERYWHERE else ()))):
            yield _attack(name, door, pickles.zipped(data))
        yield _attack(f'{name} plain', 'CheckpointLoader', data)
        yield _attack(f'{name} legacy', 'test', pickles.legacy(data))
    for name, data in (*pickles.nested_keys(), *pickles.large_calls()):
        for door in dict.fromkeys(('CheckpointLoader', next(turn))):
            yield _attack(name, door, pickles.zipped(data))
        yield _attack(f'{name} legacy', 'CheckpointLoader', pickles.legacy(data))


def _saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class _Module(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 1


def _script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(_Module()), buffer)
    return buffer.getvalue()


def _kinds_of_tensors() -> dict[str, Callable[[], object]]:
    value = torch.ones(4, 4)
    return {
        'quantized': lambda: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
        'quantized per channel': lambda: torch.quantize_per_channel(
            value, torch.ones(4), torch.zeros(4), 0, torch.qint8
        ),
        'sparse': lambda: value.to_sparse(),
        'sparse rows': lambda: value.to_sparse_csr(),
        'meta': lambda: value.to('meta'),
        'nested': lambda: torch.nested.nested_tensor([value, value]),
        'one value repeated': lambda: torch.ones(1).expand(2**20, 2**20),
    }


def _tensors() -> Iterator[Case]:
    turn = _turns()
    for name, make in _kinds_of_tensors().items():
        content = functools.partial(lambda make: _saved({'state_dict': {'weight': make()}}), make)
        for door in dict.fromkeys(('CheckpointLoader', 'convert', next(turn))):
            yield _attack(f'{name} tensor', door, content)


def _bomb(name: str, size: int) -> bytes:
    """Returns a checkpoint with a record of `size` zeros, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('archive/version', b'3\n')
        if not name.endswith('data.pkl'):
            archive.writestr(
                'archive/data.pkl', b'\x80\x02}' + text(b'a') + pickles.tensor(pickles.storage(size=size // 4)) + b's.'
            )
        with archive.open(name, 'w', force_zip64=True) as record:
            for _ in range(size // 2**20):
                record.write(bytes(2**20))
    return buffer.getvalue()


def _renamed(old: bytes, new: bytes, data: bytes) -> bytes:
    return data.replace(old, new)


def _archives() -> dict[str, Callable[[], bytes]]:
    harmless = _saved({'state_dict': {'weight': torch.ones(1)}})
    payload = pickles.call('os.system', text(pickles.COMMAND)) + b'.'
    inner = pickles.zipped(payload)
    return {
        'zip in a zip': lambda: pickles.zipped(inner),
        'zip as data.pkl': lambda: pickles.zipped(inner, {'data.pkl': inner}),
        'TorchScript': _script,
        'TorchScript with a payload': lambda: pickles.zipped(
            payload, {'archive/constants.pkl': payload, 'archive/code/a.py': CODE.encode()}
        ),
        'zip without data.pkl': lambda: _renamed(b'data.pkl', b'date.pkl', harmless),
        'bomb of data.pkl': lambda: _bomb('archive/data.pkl', 2**32),
        'bomb of a storage': lambda: _bomb('archive/data/0', 2**32),
        'bomb of another record': lambda: _bomb('archive/data/9', 2**32),
        'names above': lambda: pickles.zipped(payload, {'../../../above': b'x', '..\\..\\above': b'x'}),
        'absolute names': lambda: pickles.zipped(payload, {'/tmp/absolute': b'x'}),
        'two records of one name': lambda: pickles.zipped(b'\x80\x02}.', {'archive/data.pkl': payload}),
        'two folders': lambda: pickles.zipped(payload, {'other/data.pkl': payload}),
        'pickle before a zip': lambda: payload + harmless,
        'zip after a pickle': lambda: b'\x80\x02}.' + inner,
        'zip of nothing': lambda: b'PK\x05\x06' + bytes(18),
        'encrypted': lambda: _encrypted(harmless),
        'record of 2**40 bytes': lambda: _wrong_size(harmless),
        'unknown compression': lambda: _wrong_method(harmless),
        'gzip': lambda: b'\x1f\x8b\x08' + zlib.compress(payload * 1000),
        'shell script': lambda: b'#!/bin/sh\n' + pickles.COMMAND + b'\n',
        'Python source': lambda: CODE.encode(),
        'ELF': lambda: b'\x7fELF' + bytes(200),
        'HDF5': lambda: b'\x89HDF\r\n\x1a\n' + bytes(200),
        'NumPy of objects': lambda: (
            b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
            + b' ' * 60
            + b'\n'
            + payload
        ),
    }


def _directory(data: bytes) -> int:
    return data.index(b'PK\x01\x02')


def _encrypted(data: bytes) -> bytes:
    """Returns a zip file whose first record is said to be encrypted."""
    place = _directory(data)
    data = data[: place + 8] + bytes([data[place + 8] | 1]) + data[place + 9 :]
    return data[:6] + bytes([data[6] | 1]) + data[7:]


def _wrong_size(data: bytes) -> bytes:
    place = _directory(data)
    return data[: place + 24] + struct.pack('<I', 0xFFFFFFF0) + data[place + 28 :]


def _wrong_method(data: bytes) -> bytes:
    place = _directory(data)
    return data[: place + 10] + struct.pack('<H', 99) + data[place + 12 :]


def _zips() -> Iterator[Case]:
    turn = _turns()
    for name, make in _archives().items():
        doors = ('CheckpointLoader', 'convert', next(turn))
        for door in dict.fromkeys(doors):
            yield _attack(name, door, make)


def _safetensors(header: object, data: bytes = bytes(64), length: int | None = None) -> bytes:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(content) if length is None else length) + content + data


def _entry(shape: list, offsets: list, kind: str = 'F32') -> dict:
    return {'dtype': kind, 'shape': shape, 'data_offsets': offsets}


HEADERS: dict[str, bytes] = {
    'overlapping': _safetensors({'a': _entry([8], [0, 32]), 'b': _entry([8], [16, 48])}),
    'oversized': _safetensors({'a': _entry([10**9], [0, 4 * 10**9])}),
    'negative offsets': _safetensors({'a': _entry([8], [-32, 0])}),
    'reversed offsets': _safetensors({'a': _entry([8], [32, 0])}),
    'negative shape': _safetensors({'a': _entry([-1], [0, 4])}),
    'shape of 2**63': _safetensors({'a': _entry([2**63, 2**63], [0, 64])}),
    'gap': _safetensors({'a': _entry([8], [32, 64])}),
    'unknown type': _safetensors({'a': _entry([8], [0, 32], 'EVIL')}),
    'header of 8 EiB': _safetensors({}, length=2**63 - 1),
    'header of 200 MB': _safetensors(b'{' + b' ' * 200_000_000 + b'}'),
    'header beyond the end': _safetensors({}, length=10_000),
    'header of a list': _safetensors([1, 2]),
    'header that is no JSON': _safetensors(b'not JSON'),
    'header that is no UTF-8': _safetensors(b'{"\xff": 1}'),
    'deep header': _safetensors(b'{"a":' * 50_000 + b'1' + b'}' * 50_000),
    'two entries of one name': _safetensors(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    'metadata with a deep text': _safetensors(
        {'__metadata__': {'rass_mm.adapter': '[' * 100_000}, 'a': _entry([16], [0, 64])}
    ),
    'metadata with a number': _safetensors({'__metadata__': {'rass_mm.adapter': 5}, 'a': _entry([16], [0, 64])}),
    'a pickle': pickles.call('os.system', text(pickles.COMMAND)) + b'.',
    'a zip': pickles.zipped(pickles.call('os.system', text(pickles.COMMAND)) + b'.'),
}


def _safe() -> Iterator[Case]:
    turn = itertools.cycle(
        ('attention', 'scr_adapter', 'test', 'segment', 'load_from', 'segment with a config', 'init_cfg')
    )
    for name, data in HEADERS.items():
        for door in ('restore', next(turn), 'load_segmentor'):
            yield _attack(f'safetensors {name}', door, data, 'safetensors')
        prepare = functools.partial(copy_base, functools.partial(_replace_weights, data))
        command = f'restore $FX/good.png out --adapter $FX/adapter.safetensors {RESTORE}'.replace('$FX/base', 'base')
        yield Case(f'malicious/safetensors {name}/base', command, named=('base',), prepare=prepare, malicious=True)


def _replace_weights(data: bytes, base: Path) -> None:
    next((base / 'unet').glob('*.safetensors')).write_bytes(data)


URLS = (
    *('http://127.0.0.1:9/given.pth', 'https://127.0.0.1:9/given.pth', 'HTTP://127.0.0.1:9/given.pth'),
    *('s3://bucket/given.pth', 'petrel://given.pth', 'cluster:s3://bucket/given.pth', 'file:///tmp/given.pth'),
    *('modelzoo://given', 'torchvision://given', 'open-mmlab://given', 'openmmlab://given', 'mmcls://given'),
    *('pavi://given', 'ftp://127.0.0.1/given.pth', 'hf://given', 'data:application/octet-stream;base64,gASV'),
    *('torchvision://resnet50', '//127.0.0.1/share/given.pth'),
)


def _urls() -> Iterator[Case]:
    turn = itertools.cycle((*MMENGINE, 'convert', 'restore'))
    for url in URLS:
        for door in (next(turn), next(turn), next(turn)):
            yield Case(f'malicious/url {url.replace("/", "_")}/{door}', at(door, url), malicious=True)
    for door in (*MMENGINE, 'convert', 'restore', 'scr_adapter'):
        name, call = f'malicious/payload that a server offers/{door}', functools.partial(_offered, door)
        prepare = lambda folder, kit: (folder / 'kit').symlink_to(kit)  # noqa: E731
        yield Case(name, call, named=('127.0.0.1',), prepare=prepare, malicious=True)


def _offered(door: str, folder: Path) -> None:
    """Gives a door the address of a pickle that runs code, which a server of this process offers."""
    payload = pickles.zipped(b'\x80\x02' + pickles.call('os.system', text(pickles.COMMAND)) + b'.')
    write('offered/given.pth', payload, folder, folder)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder / 'offered')
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    given = at(door, f'http://127.0.0.1:{server.server_port}/given.pth')
    if callable(given):
        given(folder)
    else:
        from rass_mm_cli.main import main

        raise SystemExit(main(Case('', given).arguments(Path('kit'))))


def _yaml(body: str) -> bytes:
    return f'model:\n  type: EncoderDecoder\n  value: {body}\n'.encode()


YAMLS: dict[str, bytes] = {
    'apply': _yaml('!!python/object/apply:os.system ["touch $RASS_CANARY"]'),
    'apply of exec': _yaml(f'!!python/object/apply:builtins.exec ["{CODE}"]'),
    'object': _yaml('!!python/object:subprocess.Popen {args: touch}'),
    'new object': _yaml('!!python/object/new:subprocess.Popen [["sh", "-c", "touch $RASS_CANARY"]]'),
    'state': _yaml(
        '!!python/object/new:type {args: [z, !!python/tuple [], {extend: !!python/name:exec }], '
        f'listitems: "{CODE}"}}'
    ),
    'name': _yaml('!!python/name:os.system ""'),
    'module': _yaml('!!python/module:os ""'),
    'local tag': _yaml('!evil x'),
    'binary': _yaml('!!binary aGVsbG8='),
    'timestamp': _yaml('!!timestamp 2020-01-01'),
    'set of itself': b'a: &a [*a]\n',
    'bomb': (
        'a0: &a0 [x,x,x,x,x,x,x,x,x]\n'
        + ''.join(f'a{n}: &a{n} [{",".join([f"*a{n - 1}"] * 9)}]\n' for n in range(1, 12))
    ).encode(),
    'merge bomb': (
        'a0: &a0 {x: 1}\n' + ''.join(f'a{n}: &a{n} {{<<: [{",".join([f"*a{n - 1}"] * 9)}]}}\n' for n in range(1, 12))
    ).encode(),
    'deep': b'a: ' + b'[' * 50_000 + b']' * 50_000,
    'deep blocks': b''.join(b' ' * n + b'a:\n' for n in range(3000)),
    'two documents': b'a: 1\n---\n' + _yaml('!!python/name:os.system ""'),
    'directive': b'%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system ""\n',
}
JSONS: dict[str, bytes] = {
    'deep lists': b'[' * 100_000 + b']' * 100_000,
    'deep mappings': b'{"a":' * 100_000 + b'1' + b'}' * 100_000,
    'long number': b'{"a": ' + b'9' * 100_000 + b'}',
    '50 MB': b'{"a": "' + b'x' * 50_000_000 + b'"}',
    'deep value': b'{"model": {"type": "EncoderDecoder", "a": ' + b'[' * 150 + b']' * 150 + b'}}',
}
CONFIG_DOORS = {
    'check-data': 'check-data @',
    'train': 'train @ --work-dir w',
    'test': 'test @ $FX/resnet.pth --work-dir w',
    'segment': 'segment $FX/good.png out --checkpoint $FX/resnet.pth --config @',
    'robustness': f'robustness @ $FX/resnet.pth {"--out c --kinds blur --severities 1"}',
    'benchmark': 'benchmark @ --size 64x64 --iterations 1 --warmup 1',
}
"""Doors of a config file."""


def _config_files() -> Iterator[Case]:
    turn = itertools.cycle(door for door in CONFIG_DOORS if door != 'check-data')
    for suffix, files in (('yaml', YAMLS), ('json', JSONS)):
        for name, data in files.items():
            for door in ('check-data', next(turn)):
                command = CONFIG_DOORS[door]
                prepare = functools.partial(write, f'given.{suffix}', data)
                command = command.replace('@', f'given.{suffix}')
                case = f'malicious/{suffix} {name}/{door}'
                yield Case(case, command, named=(rf'given\.{suffix}',), prepare=prepare, malicious=True)
    for name in ('report r/given.json', 'robustness --plot r/given.json --out o'):
        for kind, data in JSONS.items():
            prepare = functools.partial(write, 'r/given.json', data)
            yield Case(
                f'malicious/record {kind}/{name.split()[0]}', name, named=('given',), prepare=prepare, malicious=True
            )


CALLS = (
    *('os.system', 'os.popen', 'posix.system', 'subprocess.Popen', 'subprocess.call', 'subprocess.check_output'),
    *('builtins.exec', 'builtins.eval', 'builtins.open', 'builtins.__import__', 'importlib.import_module'),
    *(
        'runpy.run_path',
        'shutil.rmtree',
        'torch.load',
        'torch.hub.load',
        'torch.jit.load',
        'torch.utils.collect_env.run',
    ),
    *('mmengine.utils.call_command', 'mmengine.config.Config.fromfile', 'mmengine.fileio.load', 'numpy.load'),
    *('mmseg.models.segmentors.EncoderDecoder', 'rass_mm.apis.train', 'antigravity', 'given.Model', 'os', '.system'),
    *('mmseg.os.system', 'torch.nn.os.system'),
)
"""Dotted names that a `type` may not have."""
PLACES = (
    *('model', 'model.backbone', 'model.decode_head', 'model.data_preprocessor', 'train_dataloader.dataset'),
    *('train_dataloader.sampler', 'train_dataloader.dataset.pipeline.0', 'test_evaluator', 'optim_wrapper'),
    *('optim_wrapper.optimizer', 'param_scheduler.0', 'visualizer', 'custom_hooks.0', 'default_hooks.logger'),
    *('train_cfg', 'tta_model', 'model.decode_head.loss_decode', 'model.backbone.norm_cfg'),
)
"""Keys of a config whose values have a `type`."""
IMPORTS = ('os', 'antigravity', 'given', 'mmseg.apis.given', 'torch.utils.collect_env', '/tmp/given.py', '../given')
LITERALS = {
    'call': "model = __import__('os').system('touch $RASS_CANARY')",
    'exec': f'exec({CODE!r})',
    'import': 'import os\nos.system("touch $RASS_CANARY")',
    'from import': 'from os import system\nsystem("touch $RASS_CANARY")',
    'f-string': "model = f\"{__import__('os').system('touch $RASS_CANARY')}\"",
    'lambda': "model = (lambda: __import__('os').system('touch $RASS_CANARY'))()",
    'comprehension': "model = [__import__('os').system('touch $RASS_CANARY') for _ in 'a']",
    'dict with a call': "model = dict(type='EncoderDecoder', a=__import__('os').system('touch $RASS_CANARY'))",
    'stars': "model = dict(**__import__('os').environ)",
    'decorator': "@__import__('os').system\ndef f(): pass",
    'class': "class A:\n    __import__('os').system('touch $RASS_CANARY')",
    'walrus': "(a := __import__('os').system('touch $RASS_CANARY'))",
    'assert': "assert __import__('os').system('touch $RASS_CANARY')",
    'attribute': "model.a = __import__('os').system('touch $RASS_CANARY')",
    'augmented': "a = 1\na += __import__('os').system('touch $RASS_CANARY')",
    'annotation': "a: __import__('os').system('touch $RASS_CANARY') = 1",
    'base': "_base_ = ['/tmp/given.py']",
    'template': "model = dict(type='{{ fileDirname }}')",
    'deep': 'a = ' + '(' * 5000 + ')' * 5000,
    'deep lists': 'a = ' + '[' * 90 + ']' * 90 + '\n' + 'b = ' + '-' * 50_000 + '1',
    'power': 'a = 9 ** 9 ** 9',
    'repeated': "a = 'x' * 10 ** 12",
    'long': 'a = ' + '"' + 'x' * 2**21 + '"',
    'zero byte': 'a = "\x00"',
    'nothing': '',
    'number': 'a = ' + '9' * 5000,
    'surrogate': 'a = "\\ud800"\nmodel = dict(type="\\ud800")',
}
"""Config texts that are no literals, or break the parser."""


def _nested(place: str, value: object) -> dict:
    found = value
    for part in reversed(place.split('.')):
        found = [found] if part.isdigit() else {part: found}
    return found


def _typed(place: str, name: str) -> dict:
    content = {'custom_imports': {'imports': ['rass_mm'], 'allow_failed_imports': False}}
    content |= {'model': {'type': 'EncoderDecoder'}}
    made = _nested(place, {'type': name, 'command': 'touch $RASS_CANARY', 'args': 'touch $RASS_CANARY', 'shell': True})
    key = next(iter(made))
    content[key] = {**content.get(key, {}), **made[key]} if isinstance(made[key], dict) else made[key]
    return content


def _as_text(content: dict) -> str:
    return '\n'.join(f'{key} = {value!r}' for key, value in content.items())


def _with_config(config: object, hub: object, folder: Path, kit: Path) -> None:
    loaded = torch.load(kit / 'resnet.pth', weights_only=False)
    loaded['meta'] |= {'cfg': config, 'config': config}
    if hub is not None:
        loaded.setdefault('message_hub', {}).setdefault('runtime_info', {})['cfg'] = hub
    else:
        (loaded.get('message_hub') or {}).get('runtime_info', {}).pop('cfg', None)
    torch.save(loaded, folder / 'given.pth')


def _data_configs() -> Iterator[Case]:
    """Yields configs that are data, with a dotted `type` or import, at every door of such a config."""
    contents = {f'type {name}': _typed(PLACES[number % len(PLACES)], name) for number, name in enumerate(CALLS)}
    contents |= {f'os.system in {place}': _typed(place, 'os.system') for place in PLACES}
    turn = itertools.cycle(itertools.product(('json', 'yaml'), CONFIG_DOORS))
    parts = itertools.cycle(('meta', 'hub', 'MMSegInferencer', 'resume'))
    contents |= {
        f'import {name.replace("/", "_")}': {**_typed('model', 'EncoderDecoder'), 'custom_imports': {'imports': [name]}}
        for name in IMPORTS
    }
    for name, content in contents.items():
        suffix, door = next(turn)
        prepare = functools.partial(write, f'given.{suffix}', json.dumps(content).encode())
        command = CONFIG_DOORS[door].replace('@', f'given.{suffix}')
        yield Case(f'malicious/{suffix} {name}/{door}', command, named=('given',), prepare=prepare, malicious=True)
        yield from _texts(name, _as_text(content), next(parts))
    for name, literal in LITERALS.items():
        yield from _texts(f'text {name}', literal, next(parts))


def _texts(name: str, config: str, part: str) -> Iterator[Case]:
    """Yields a checkpoint with a config text at `segment`, and at a further door."""
    prepare = functools.partial(_with_config, *(('', config) if part == 'hub' else (config, None)))
    yield Case(
        f'malicious/{name} in {part}/segment',
        at('segment', 'given.pth'),
        named=('given',),
        prepare=prepare,
        malicious=True,
    )
    if part == 'MMSegInferencer':
        yield Case(f'malicious/{name}/MMSegInferencer', _inferencer, prepare=prepare, malicious=True)
    if part == 'resume':
        prepare = functools.partial(_with_config, config, None)
        yield Case(f'malicious/{name}/resume', at('resume', 'given.pth'), prepare=prepare, malicious=True)


RUNNING: dict[str, dict[str, object]] = {
    'os.system': {'command': 'touch $RASS_CANARY'},
    'subprocess.Popen': {'args': 'touch $RASS_CANARY', 'shell': True},
    'subprocess.getoutput': {'cmd': 'touch $RASS_CANARY'},
}
"""Dotted names of a `type` with just the arguments with which they run."""


def _running() -> Iterator[Case]:
    """Yields configs that are data and whose model runs a command, at the doors that build it."""
    for name, arguments in RUNNING.items():
        config = {'model': {'type': name, **arguments}}
        for suffix, door in (('json', 'benchmark'), ('yaml', 'segment')):
            prepare = functools.partial(write, f'given.{suffix}', json.dumps(config).encode())
            command = CONFIG_DOORS[door].replace('@', f'given.{suffix}')
            case = f'malicious/{suffix} that runs {name}/{door}'
            yield Case(case, command, named=('given',), prepare=prepare, malicious=True)
        yield from _texts(f'text that runs {name}', _as_text(config), 'meta')


def _inferencer(folder: Path) -> None:
    from mmseg.apis import MMSegInferencer

    MMSegInferencer(model=None, weights='given.pth', device='cpu')


def _edit(file: str, base: Path, **values: object) -> None:
    path = base / file
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**content, **values}))


def _code_files(base: Path) -> None:
    for path in (base, *(folder for folder in base.iterdir() if folder.is_dir())):
        for name in ('modeling_evil', 'unet', 'pipeline', 'evil', 'configuration_evil', '__init__'):
            (path / f'{name}.py').write_text(CODE)


AUTO = {name: 'modeling_evil.Evil' for name in ('AutoConfig', 'AutoModel', 'AutoTokenizer', 'AutoModelForCausalLM')}
BASES: dict[str, tuple[Callable[[Path], None], bool]] = {
    'auto_map of the text encoder': (lambda base: _edit('text_encoder/config.json', base, auto_map=AUTO), False),
    'auto_map of the UNet': (lambda base: _edit('unet/config.json', base, auto_map=AUTO), False),
    'auto_map of the VAE': (lambda base: _edit('vae/config.json', base, auto_map=AUTO), False),
    'auto_map of the tokenizer': (lambda base: _edit('tokenizer/tokenizer_config.json', base, auto_map=AUTO), False),
    'class of the UNet': (lambda base: _edit('unet/config.json', base, _class_name=['unet', 'Evil']), False),
    'custom pipeline': (
        lambda base: _edit('model_index.json', base, _class_name=['pipeline', 'Evil'], unet=['evil', 'Evil']),
        True,
    ),
    'kernels': (
        lambda base: _edit(
            'text_encoder/config.json', base, _attn_implementation='evil/kernel', attn_implementation='evil/kernel'
        ),
        False,
    ),
    'quantized UNet': (
        lambda base: _edit(
            'unet/config.json', base, quantization_config={'quant_method': 'bitsandbytes', 'load_in_4bit': True}
        ),
        False,
    ),
    'quantized text encoder': (
        lambda base: _edit(
            'text_encoder/config.json', base, quantization_config={'quant_method': 'bitsandbytes', 'load_in_4bit': True}
        ),
        False,
    ),
    'unknown quantization': (
        lambda base: _edit('text_encoder/config.json', base, quantization_config={'quant_method': 'evil'}),
        False,
    ),
    'pickled UNet': (lambda base: _pickled(base, 'unet', 'diffusion_pytorch_model'), False),
    'pickled VAE': (lambda base: _pickled(base, 'vae', 'diffusion_pytorch_model'), False),
    'pickled text encoder': (lambda base: _pickled(base, 'text_encoder', 'model'), False),
    'link out of the folder': (lambda base: _linked(base), False),
}
"""Changes of a base, and whether the base is still valid."""


def _pickled(base: Path, part: str, stem: str) -> None:
    for file in (base / part).glob('*.safetensors'):
        file.unlink()
    for name in (f'{stem}.bin', 'pytorch_model.bin', f'{stem}.pth', f'{stem}.safetensors.index.json'):
        (base / part / name).write_bytes(pickles.zipped(pickles.call('os.system', text(pickles.COMMAND)) + b'.'))


def _linked(base: Path) -> None:
    file = next((base / 'unet').glob('*.safetensors'))
    file.unlink()
    file.symlink_to('/dev/zero')


def _bases() -> Iterator[Case]:
    doors = {
        'restore': f'restore $FX/good.png out --adapter $FX/adapter.safetensors {RESTORE}',
        'attention': 'attention $FX/good.png --adapter $FX/adapter.safetensors --base $FX/base',
        'train': f'train {RASS} --work-dir w --cfg-options {RUN} {BASED}',
        'test': f'test {RASS} $FX/rass.pth --work-dir w --cfg-options {DATA} {BASED}',
    }
    turn = itertools.cycle(doors)
    for name, (change, valid) in BASES.items():
        for door in (
            dict.fromkeys(('restore', next(turn), 'train')) if name != 'auto_map of the text encoder' else doors
        ):
            command = doors[door]
            prepare = functools.partial(
                copy_base, functools.partial(lambda change, base: (_code_files(base), change(base)), change)
            )
            command = command.replace('$FX/base', 'base')
            yield Case(f'malicious/base {name}/{door}', command, ok=valid, prepare=prepare, malicious=True)


def _resaved(change: Callable[[dict], object], options: dict, folder: Path, kit: Path) -> None:
    loaded = torch.load(kit / 'resnet.pth', weights_only=False)
    torch.save(change(loaded), folder / 'given.pth', **options)


def _compressed(folder: Path, kit: Path) -> None:
    with (
        zipfile.ZipFile(kit / 'resnet.pth') as source,
        zipfile.ZipFile(folder / 'given.pth', 'w', zipfile.ZIP_DEFLATED) as target,
    ):
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


HARMLESS: dict[str, Callable[[Path, Path], None]] = {
    'as written': functools.partial(_resaved, lambda loaded: loaded, {}),
    'legacy': functools.partial(_resaved, lambda loaded: loaded, {'_use_new_zipfile_serialization': False}),
    'compressed': _compressed,
    'prefix of a wrapper': functools.partial(
        _resaved,
        lambda loaded: {
            **loaded,
            'state_dict': {f'module.{key}': value for key, value in loaded['state_dict'].items()},
        },
        {},
    ),
    'shared containers': functools.partial(
        _resaved, lambda loaded: {**loaded, 'a': [shared := [1, 2], shared], 'b': shared}, {}
    ),
    'other entries': functools.partial(
        _resaved, lambda loaded: {**loaded, 'ema': {'decay': 0.9}, 'note': 'text', 'empty': [], 'big': 2**70}, {}
    ),
    'float16 entry': functools.partial(
        _resaved, lambda loaded: {**loaded, 'extra': torch.ones(3, dtype=torch.bfloat16)}, {}
    ),
}
"""Odd checkpoints that are valid."""
HARMLESS |= {
    name: functools.partial(_resaved, functools.partial(lambda part, loaded: {**loaded, 'further': part}, part), {})
    for name, part in {
        '30 levels': functools.reduce(lambda inner, _: {'a': [inner]}, range(15), 1),
        '3000 tensors': {str(index): torch.zeros(2) for index in range(3000)},
        '100,000 numbers': list(range(100_000)),
        'one value repeated 1000 times': torch.ones(1).expand(1000),
    }.items()
}


def _after(folder: Path, kit: Path) -> None:
    write(
        'given.pth',
        _saved({'state_dict': {'weight': torch.ones(1)}}) + pickles.call('os.system', text(pickles.COMMAND)) + b'.',
        folder,
        kit,
    )


def _controls() -> Iterator[Case]:
    """Yields valid files. torch does not read what follows the checkpoint in a file."""
    door = 'CheckpointLoader'
    yield Case(f'malicious/pickle after a zip/{door}', at(door, 'given.pth'), ok=True, prepare=_after, malicious=True)
    slow = itertools.cycle(('test', 'load_from', 'resume', 'fine_tune', 'robustness'))
    for name, prepare in HARMLESS.items():
        quick = (
            'CheckpointLoader',
            'init_model',
            'MMSegInferencer',
            'segment',
            'segment with a config',
            'load_segmentor',
        )
        for door in (*quick, 'benchmark', next(slow), next(slow)):
            command = at(door, 'given.pth')
            yield Case(f'malicious/valid {name}/{door}', command, ok=True, prepare=prepare)
    configs = {
        'yaml': (
            'given.yaml',
            b'_base_: baselines/resnet_scenes_tiny.py\nx: &x [1, 2]\ny: [*x, *x]\nz: !!python/tuple [1, 2]\n',
        ),
        'json': ('given.json', b'{"_base_": ["baselines/resnet_scenes_tiny.py"], "note": "ok"}'),
    }
    options = {'train': f'--cfg-options {RUN}', 'test': f'--cfg-options {DATA}', 'check-data': f'--cfg-options {DATA}'}
    for suffix, (file, data) in configs.items():
        for door, command in CONFIG_DOORS.items():
            if door == 'robustness':
                options[door] = f'--limit 1 --cfg-options {DATA}'
            made = f'{command.replace("@", file)} {options.get(door, "")}'
            yield Case(f'malicious/valid {suffix}/{door}', made, ok=True, prepare=functools.partial(write, file, data))


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    for made in (_pickles, _tensors, _zips, _safe, _urls, _config_files, _data_configs, _running, _bases, _controls):
        yield from made()
