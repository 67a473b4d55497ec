"""Adapter files with a wrong header, wrong tensors or damaged bytes, at the commands that read one."""

import copy
import functools
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from campaign.cases import Case
from campaign.faults import DAMAGES, WRONG, damaged_middle, kind_of
from campaign.kit import data_options
from safetensors import safe_open
from safetensors.torch import save_file

FILE = 'a.safetensors'
OPTIONS = ['train_cfg.max_iters=1', 'train_cfg.val_interval=1000', 'train_dataloader.batch_size=2']
OPTIONS += ['train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
RASS = [*data_options('$FX/data', '$FX/base'), *OPTIONS, f'model.backbone.scr_adapter={FILE}']
SCR = [*data_options('$FX/data'), *OPTIONS, 'model.base=$FX/base', f'model.start={FILE}']


def merge(folder: Path) -> None:
    """Merges the adapter into the UNet of a segmentor."""
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.extractor import DiffusionExtractor

    DiffusionExtractor(read_base('base'), features=['unet.down_blocks.0'], merged_adapter=FILE)


def start(folder: Path) -> None:
    """Starts the training of a restorer from the adapter."""
    from rass_mm.diffusion.adapters import AdapterSpec
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.one_step_restorer import OneStepRestorer

    OneStepRestorer(read_base('base'), adapter=AdapterSpec(rank=16, alpha=32), start=FILE)


DOORS: dict[str, Any] = {
    'restore': f'restore $FX/good.png out --adapter {FILE} --base $FX/base --window 64 --overlap 16',
    'attention': f'attention $FX/good.png --adapter {FILE} --base $FX/base --out maps',
    'merge': merge,
    'start': start,
    'train': ['train', 'rass/rass_scenes_tiny.py', '--work-dir', 'work', '--cfg-options', *RASS],
    'train restorer': ['train', 'scr/scr_scenes_tiny.py', '--work-dir', 'work', '--cfg-options', *SCR],
}
RESTORERS = ('restore', 'attention')
QUICK = ('restore', 'attention', 'merge', 'start')
"""Doors of most cases. Those of whole trainings take longer."""
NAN = float('nan')
VALUES: dict[str, list[Any]] = {
    'rank': [0, -3, 'x', 5, 4.5, 10**9, NAN],
    'alpha': [NAN, float('inf'), 0, -8, '8'],
    'targets': [[], 'to_q', ['nope'], ['to_q', 7], [''], {'to_q': 1}, [None]],
    'base': [{}, 'base', [], {'config': 'x', 'weights': 'y'}, {'config': 1, 'weights': 2}, {'config': 'x'}],
    'hash': ['0' * 16, '', 7],
    'name': ['', 'with.dots', 7, ['scr']],
    'recipe': [{}],
    'vae': [{}, 'x', {'rank': 0, 'alpha': 8, 'targets': ['conv1']}, {'rank': 4, 'alpha': 8, 'targets': ['nope']}],
}
RECIPE: dict[str, list[Any]] = {
    'form': ['nope', 7, ''],
    'timestep': [99_999, -1, '1', 1.5, NAN, 1000],
    'prompt': ['Nope', 'TagPrompt', '', 7, 'os.system'],
    'classes': [[], [1] * 12, ['sky', None], 'sky', ['long ' * 2000], [''], {'sky': 0}],
}
Content = tuple[dict[str, Any], dict[str, torch.Tensor]]


def _read(kit: Path) -> Content:
    with safe_open(kit / 'adapter.safetensors', 'pt') as file:
        header = json.loads(file.metadata()['rass_mm.adapter'])
        return header, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)


def _write(folder: Path, header: Any, tensors: dict[str, torch.Tensor], keep_hash: bool = False) -> None:
    """Writes an adapter whose hash fits its content, so that not only the hash is wrong."""
    from rass_mm.diffusion.adapter_files import content_hash

    if isinstance(header, dict) and 'hash' in header and not keep_hash:
        header = {**header, 'hash': content_hash(header, tensors)}
    tensors = {key: value.contiguous() for key, value in tensors.items()}
    save_file(tensors, folder / FILE, metadata={'rass_mm.adapter': json.dumps(header)})


def _header(change: Callable[[dict], Any], keep_hash: bool, folder: Path, kit: Path) -> None:
    header, tensors = _read(kit)
    changed = change(copy.deepcopy(header))
    _write(folder, changed, tensors, keep_hash)


def _tensors(change: Callable[[dict, dict], Any], folder: Path, kit: Path) -> None:
    header, tensors = _read(kit)
    changed = change(tensors, header)
    _write(folder, header, tensors if changed is None else changed)


def _bytes(change: Callable[[bytes], bytes], folder: Path, kit: Path) -> None:
    (folder / FILE).write_bytes(change((kit / 'adapter.safetensors').read_bytes()))


def _with(key: str, value: Any, header: dict) -> dict:
    *outer, last = key.split('.')
    inner = header
    for part in outer:
        inner = inner[part]
    if value is ...:
        inner.pop(last)
    else:
        inner[last] = value
    return header


def _prepare(prepare: Callable, folder: Path, kit: Path) -> None:
    (folder / 'base').symlink_to(kit / 'base')
    prepare(folder, kit)


def _case(kind: str, door: str, prepare: Callable, ok: bool = False, key: str = '', **more: Any) -> Case:
    named = () if ok else (r'a\.safetensors', key)
    prepared = functools.partial(_prepare, prepare)
    return Case(f'adapters/{kind}/{door}', DOORS[door], ok=ok, named=named, prepare=prepared, **more)


def _headers() -> Iterator[Case]:
    doors, turn = QUICK, 0
    for key in ('rank', 'alpha', 'targets', 'base', 'hash', 'name', 'recipe'):
        valid = {'rank': 7, 'alpha': 8.0, 'targets': [], 'base': {}, 'hash': '', 'name': '', 'recipe': {}}[key]
        for wrong, value in [*WRONG.items(), ('absent', ...)]:
            if value is not ... and kind_of(valid) == wrong and key not in ('rank',):
                continue
            for door in dict.fromkeys((doors[turn % 4], 'restore')):
                if key == 'recipe' and wrong == 'absent' and door not in RESTORERS:
                    continue  # an adapter without a recipe is not a restorer, but trainings accept it
                prepare = functools.partial(_header, functools.partial(_with, key, value), key == 'hash')
                yield _case(f'header {key} {wrong}', door, prepare, key=key)
            turn += 1
    for key, values in VALUES.items():
        for number, value in enumerate(values):
            prepare = functools.partial(_header, functools.partial(_with, key, value), key == 'hash')
            for door in dict.fromkeys((doors[number % 4], doors[(number + 1) % 4], 'restore')):
                yield _case(f'header {key} {number} {_shown(value)}', door, prepare)


def _recipes() -> Iterator[Case]:
    for key, values in RECIPE.items():
        for number, value in enumerate([*values, None, ..., True]):
            prepare = functools.partial(_header, functools.partial(_with, f'recipe.{key}', value), False)
            more = {'malicious': value == 'os.system'}
            for door in RESTORERS:
                yield _case(f'recipe {key} {number} {_shown(value)}', door, prepare, key=key, **more)


def _shown(value: Any) -> str:
    return 'absent' if value is ... else json.dumps(value)[:24].replace('/', ' ')


def _whole_headers() -> Iterator[Case]:
    contents: dict[str, Any] = {'null': None, 'list': [1], 'text': 'x', 'number': 7, 'empty': {}, 'true': True}
    for number, (name, content) in enumerate(contents.items()):
        prepare = functools.partial(_header, lambda _, content=content: content, False)
        for door in dict.fromkeys((QUICK[number % 4], QUICK[(number + 2) % 4], 'restore')):
            yield _case(f'whole header {name}', door, prepare)
    texts = {'no JSON': '{', 'deep': '[' * 50_000 + ']' * 50_000, 'empty text': '', 'python': "__import__('os')"}
    for number, (name, text) in enumerate(texts.items()):
        prepare = functools.partial(_raw_metadata, {'rass_mm.adapter': text})
        yield _case(f'whole header {name}', QUICK[number % 4], prepare, malicious=name in ('deep', 'python'))
    yield _case('no metadata', 'restore', functools.partial(_raw_metadata, None))
    yield _case('other metadata', 'merge', functools.partial(_raw_metadata, {'format': 'pt'}))


def _raw_metadata(metadata: dict[str, str] | None, folder: Path, kit: Path) -> None:
    save_file(_read(kit)[1], folder / FILE, metadata=metadata)


def _first(tensors: dict, ending: str = 'lora_A.weight') -> str:
    return next(key for key in sorted(tensors) if key.endswith(ending))


def _without(ending: str, tensors: dict, header: dict) -> None:
    tensors.pop(_first(tensors, ending))


def _only(ending: str, tensors: dict, header: dict) -> dict:
    return {key: value for key, value in tensors.items() if key.endswith(ending)}


def _shaped(ending: str, tensors: dict, header: dict) -> None:
    key = _first(tensors, ending)
    tensors[key] = tensors[key].unsqueeze(0).repeat(2, *[1] * tensors[key].ndim)


def _narrower(ending: str, tensors: dict, header: dict) -> None:
    key = _first(tensors, ending)
    tensors[key] = tensors[key][:-1] if ending == 'lora_A.weight' else tensors[key][..., :-1]


def _valued(value: float, tensors: dict, header: dict) -> None:
    tensors[_first(tensors)].view(-1)[0] = value


def _typed(kind: torch.dtype, tensors: dict, header: dict) -> dict:
    return {key: value.to(kind) for key, value in tensors.items()}


def _further(key: str, tensors: dict, header: dict) -> None:
    tensors[key] = torch.ones(4, 4)


def _huge(tensors: dict, header: dict) -> None:
    header |= {'rank': 2_000_000_000}


def _lower_rank(tensors: dict, header: dict) -> dict:
    """Returns a valid adapter of half the rank, which is another one than that of the configs."""
    header |= {'rank': header['rank'] // 2}
    lower = {
        'lora_A.weight': lambda value: value[: header['rank']],
        'lora_B.weight': lambda value: value[:, : header['rank']],
    }
    return {key: lower.get(key[-13:], torch.clone)(value) for key, value in tensors.items()}


TENSORS: dict[str, Callable[[dict, dict], Any]] = {
    'none': lambda tensors, header: {},
    'only A': functools.partial(_only, 'lora_A.weight'),
    'only B': functools.partial(_only, 'lora_B.weight'),
    'no conv_in': lambda tensors, header: {key: v for key, v in tensors.items() if not key.startswith('conv_in.w')},
    'one A lacks': functools.partial(_without, 'lora_A.weight'),
    'one B lacks': functools.partial(_without, 'lora_B.weight'),
    'conv_in.bias lacks': functools.partial(_without, 'conv_in.bias'),
    'conv_in of another shape': functools.partial(_shaped, 'conv_in.weight'),
    'A of another shape': functools.partial(_shaped, 'lora_A.weight'),
    'A of another rank': functools.partial(_narrower, 'lora_A.weight'),
    'B of another rank': functools.partial(_narrower, 'lora_B.weight'),
    'nan': functools.partial(_valued, NAN),
    'infinity': functools.partial(_valued, float('-inf')),
    'int64': functools.partial(_typed, torch.int64),
    'int8': functools.partial(_typed, torch.int8),
    'bool': functools.partial(_typed, torch.bool),
    'complex': functools.partial(_typed, torch.complex64),
    'a VAE tensor': functools.partial(_further, 'vae.encoder.conv_in.lora_A.weight'),
    'an unknown layer': functools.partial(_further, 'nope.lora_A.weight'),
    'a large rank': _huge,
}


def _raw(header: bytes, data: bytes = b'') -> bytes:
    return struct.pack('<Q', len(header)) + header + data


def _offsets(start: int, end: int, shape: list[int], kind: str = 'F32') -> bytes:
    entry = {'dtype': kind, 'shape': shape, 'data_offsets': [start, end]}
    return json.dumps({'x': entry}).encode()


TWICE = b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
OVERLAP = (
    b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
)
RAW: dict[str, Callable[[bytes], bytes]] = {
    'offsets beyond the file': lambda _: _raw(_offsets(0, 2**40, [2**38])),
    'offsets backwards': lambda _: _raw(_offsets(8, 0, [2]), bytes(8)),
    'offsets negative': lambda _: _raw(_offsets(-8, 0, [2]), bytes(8)),
    'offsets overlap': lambda _: _raw(OVERLAP, bytes(12)),
    'a gap': lambda _: _raw(_offsets(4, 12, [2]), bytes(12)),
    'shape overflows': lambda _: _raw(_offsets(0, 8, [2**62, 2**62]), bytes(8)),
    'shape negative': lambda _: _raw(_offsets(0, 8, [-2]), bytes(8)),
    'shape of another size': lambda _: _raw(_offsets(0, 8, [3]), bytes(8)),
    'unknown type': lambda _: _raw(_offsets(0, 8, [2], 'F7'), bytes(8)),
    'names twice': lambda _: _raw(TWICE, bytes(4)),
    'header longer than the file': lambda data: struct.pack('<Q', 2**40) + data[8:],
    'header of 2**63': lambda data: struct.pack('<Q', 2**63 + 1) + data[8:],
    'header of length 0': lambda data: struct.pack('<Q', 0) + data[8:],
    'header no JSON': lambda _: _raw(b'hello {', bytes(8)),
    'header a list': lambda _: _raw(b'[1, 2]'),
    'header not UTF-8': lambda _: _raw(b'{"\xff": 1}'),
    'header deep': lambda _: _raw(b'{"a":' * 50_000 + b'1' + b'}' * 50_000),
    'metadata of numbers': lambda _: _raw(b'{"__metadata__": {"rass_mm.adapter": 7}}'),
    'further bytes': lambda data: data + b'more',
    'a pickle': lambda _: b"cos\nsystem\n(S'touch $RASS_CANARY'\ntR.",
    'a zip file': lambda _: b'PK\x03\x04' + bytes(60),
}


def _contents() -> Iterator[Case]:
    doors = QUICK
    for number, (kind, change) in enumerate(TENSORS.items()):
        for door in dict.fromkeys(('restore', doors[number % 4])):
            yield _case(f'tensors {kind}', door, functools.partial(_tensors, change), malicious=kind == 'a large rank')
    for number, (kind, change) in enumerate(RAW.items()):
        yield _case(f'bytes {kind}', doors[number % 4], functools.partial(_bytes, change), malicious=True)
    for number, (kind, change) in enumerate(DAMAGES.items()):
        yield _case(f'bytes {kind}', doors[number % 4], functools.partial(_bytes, change))
        yield _case(f'bytes {kind}', doors[(number + 1) % 4], functools.partial(_bytes, change))
    yield _case('bytes inverted in the middle', 'restore', functools.partial(_bytes, damaged_middle))
    yield _case('bytes inverted in the middle', 'start', functools.partial(_bytes, damaged_middle))
    for door in DOORS:
        yield _case('absent', door, lambda folder, kit: None)
        yield _case('a folder', door, lambda folder, kit: (folder / FILE).mkdir())


TRAINED: dict[str, Callable] = {
    'whole header list': functools.partial(_header, lambda _: [1], False),
    'whole header empty': functools.partial(_header, lambda _: {}, False),
    **{
        f'header {key} absent': functools.partial(_header, functools.partial(_with, key, ...), False)
        for key in ('rank', 'alpha', 'targets', 'base', 'hash', 'name')
    },
    **{
        f'header {key} {_shown(value)}': functools.partial(_header, functools.partial(_with, key, value), False)
        for key, value in (
            *(('rank', value) for value in (0, -3, 'x', 5)),
            *(('alpha', value) for value in (NAN, None)),
            *(('targets', value) for value in ([], 7, 'to_q', ['nope'])),
            ('base', {}),
            ('base', 'base'),
            ('vae', {'rank': 4, 'alpha': 8, 'targets': ['nope']}),
        )
    },
    **{
        f'tensors {kind}': functools.partial(_tensors, TENSORS[kind])
        for kind in (
            *('none', 'only A', 'only B', 'no conv_in', 'one A lacks', 'one B lacks', 'conv_in of another shape'),
            *('A of another rank', 'nan', 'int64', 'a VAE tensor', 'an unknown layer'),
        )
    },
    'bytes first half': functools.partial(_bytes, DAMAGES['first half']),
    'bytes inverted in the middle': functools.partial(_bytes, damaged_middle),
}
"""Faults with which a training could begin, if only the other commands looked for them."""


def _trainings() -> Iterator[Case]:
    for kind, prepare in TRAINED.items():
        for door in ('train', 'train restorer'):
            yield _case(kind, door, prepare)
    lower = functools.partial(_tensors, _lower_rank)
    yield _case('another rank than the config', 'train restorer', lower)
    yield _case('another rank than the config', 'start', lower)
    # a merged adapter leaves nothing of its rank
    yield _case('another rank than the config', 'train', lower, ok=True, check=_trained)
    for door in RESTORERS:
        yield _case('another rank than the config', door, lower, ok=True, check=CHECKS[door])


def _restored(folder: Path) -> str | None:
    return None if (folder / 'out' / 'good.png').stat().st_size > 1000 else 'no restored image'


def _trained(folder: Path) -> str | None:
    return None if (folder / 'work' / 'iter_1.pth').is_file() else 'no checkpoint'


CHECKS = {
    'restore': _restored,
    'attention': lambda folder: None if (folder / 'maps' / 'good_attention.png').is_file() else 'no maps',
    'merge': lambda folder: None,
    'start': lambda folder: None,
}


def _valid() -> Iterator[Case]:
    for door, check in CHECKS.items():
        same = functools.partial(_bytes, lambda data: data)
        yield _case('unchanged', door, same, ok=True, check=check)
        for key, value in {'source': {'file': 'mine'}, 'note': [1, {'a': None}]}.items():
            prepare = functools.partial(_header, functools.partial(_with, key, value), False)
            yield _case(f'header with {key}', door, prepare, ok=True, check=check)
        for kind in (torch.float16, torch.bfloat16, torch.float64):
            prepare = functools.partial(_tensors, functools.partial(_typed, kind))
            yield _case(f'tensors as {str(kind)[6:]}', door, prepare, ok=True, check=check)
        named = functools.partial(_header, functools.partial(_with, 'name', 'Schärfe 2'), False)
        yield _case('header another name', door, named, ok=True, check=check)
    for door in ('merge', 'start'):
        bare = functools.partial(_header, functools.partial(_with, 'recipe', ...), False)
        yield _case('header without a recipe', door, bare, ok=True)
    for door in ('train', 'train restorer'):
        yield _case('unchanged', door, functools.partial(_bytes, lambda data: data), ok=True, check=_trained)
    whole = functools.partial(_header, functools.partial(_with, 'alpha', 8), False)
    yield _case('header alpha an integer', 'restore', whole, ok=True, check=_restored)
    few = functools.partial(_header, functools.partial(_with, 'recipe.classes', ['sky', 'car']), False)
    for door in RESTORERS:
        yield _case('recipe two classes', door, few, ok=True, check=CHECKS[door])
    empty = functools.partial(_header, functools.partial(_with, 'recipe.prompt', 'EmptyPrompt'), False)
    yield _case('recipe EmptyPrompt', 'restore', empty, ok=True, check=_restored)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    yield from _valid()
    yield from _headers()
    yield from _recipes()
    yield from _whole_headers()
    yield from _contents()
    yield from _trainings()
