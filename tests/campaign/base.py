"""Base folders of which one file is damaged, absent or wrong, at the commands that load a base."""

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from campaign.cases import Case
from campaign.faults import BROKEN_JSON, DAMAGES, damaged_middle
from campaign.kit import data_options
from safetensors.torch import load_file, save_file

OPTIONS = [*data_options('$FX/data', 'base'), 'train_cfg.max_iters=1', 'train_cfg.val_interval=1000']
FEW = ['train_dataloader.batch_size=2', 'train_dataloader.num_workers=0', 'val_dataloader.num_workers=0']
TRAIN = ['train', 'rass/rass_scenes_tiny.py', '--work-dir', 'work', '--cfg-options', *OPTIONS, *FEW]
RESTORE = 'restore $FX/good.png out --adapter $FX/adapter.safetensors --base base --window 64 --overlap 16'
CACHE = {'RASS_MM_CACHE': 'cache'}
WEIGHTS = {
    'unet': 'unet/diffusion_pytorch_model.safetensors',
    'vae': 'vae/diffusion_pytorch_model.safetensors',
    'text_encoder': 'text_encoder/model.safetensors',
}
CONFIGS = {
    'unet': 'unet/config.json',
    'vae': 'vae/config.json',
    'text_encoder': 'text_encoder/config.json',
    'scheduler': 'scheduler/scheduler_config.json',
}
TOKENIZER = tuple(f'tokenizer/{name}.json' for name in ('tokenizer_config', 'special_tokens_map', 'vocab'))
VALUES: dict[str, dict[str, list[Any]]] = {
    'unet': {
        'block_out_channels': [
            5,
            [],
            ...,
            'wide',
            [0, 48, 96, 96],
            [24, 48],
            [24, 48, 96, -96],
            [24.5] * 4,
            [10**9] * 4,
        ],
        'attention_head_dim': [0, 'x', -1, [], [2, 0, 2, 2], 2.5],
        'norm_num_groups': [0, -8, 'x', 7],
        'layers_per_block': [0, 'x', 10**6, []],
        'in_channels': [0, 'x', None, 4, ...],
        'cross_attention_dim': [0, 63, 'x', None, ...],
        'down_block_types': [7, ['Nope'] * 4, []],
        'up_block_types': ['UpBlock2D', [1, 2, 3, 4]],
        'act_fn': ['nope', 3],
        '_class_name': ['os.system', 7],
        'quantization_config': [{'quant_method': 'bitsandbytes', 'load_in_4bit': True}, 'int8', []],
        'auto_map': [{'AutoModel': 'evil.Model'}],
        'sample_size': [float('nan'), 10**12],
    },
    'vae': {
        'block_out_channels': [5, [], ..., 'x', [16, 32, 'x']],
        'scaling_factor': ['x', float('nan'), float('inf'), 0, -1, None, True],
        'latent_channels': [0, 4, 'x', ...],
        'norm_num_groups': [0, 'x', 5],
        'layers_per_block': [0, 2, 'x'],
        'quantization_config': [{'quant_method': 'gguf'}],
    },
    'text_encoder': {
        'hidden_size': [63, 0, 'x', ..., 10**9],
        'num_hidden_layers': ['x', 0, 10**6, 3],
        'num_attention_heads': [0, 'x', 5],
        'max_position_embeddings': [0, 1, 'x', 76],
        'vocab_size': [0, 'x', 10, 10**9],
        'hidden_act': ['nope', 1],
        'quantization_config': [{'quant_method': 'gptq', 'bits': 4}],
        'auto_map': [{'AutoModel': 'evil--code.Model'}],
    },
    'scheduler': {
        'beta_start': ['x', -1, 0, 2, float('nan'), None],
        'beta_end': ['x', 1.5, []],
        'beta_schedule': ['nope', 7, None],
        'num_train_timesteps': [0, 'x', -5, 10**9, 10.5],
        'trained_betas': ['x', [], [0.1, 'x'], [2.0]],
        'prediction_type': ['v_prediction', 7, None],
    },
}
"""Wrong values by part and key; `...` removes the key."""
MALICIOUS = ('quantization_config', 'auto_map', '_class_name')


def link_base(folder: Path, kit: Path) -> Path:
    """Makes a base in the working directory whose files are links to those of the kit."""
    for source in sorted((kit / 'base').rglob('*')):
        target = folder / 'base' / source.relative_to(kit / 'base')
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
    return folder / 'base'


def replace(path: Path, content: bytes | None) -> None:
    """Replaces a file without changing the file that it was linked to; None makes a folder."""
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)


def _damage(file: str, change: Callable[[bytes], bytes | None], folder: Path, kit: Path) -> None:
    path = link_base(folder, kit) / file
    replace(path, change(path.read_bytes()))


def _remove(file: str, folder: Path, kit: Path) -> None:
    (link_base(folder, kit) / file).unlink()


def _set(file: str, key: str, value: Any, folder: Path, kit: Path) -> None:
    path = link_base(folder, kit) / file
    content = json.loads(path.read_text())
    if value is ...:
        content.pop(key)
    else:
        content[key] = value
    replace(path, json.dumps(content).encode())


def _weights(file: str, change: Callable[[dict[str, torch.Tensor]], Any], folder: Path, kit: Path) -> None:
    path = link_base(folder, kit) / file
    tensors = load_file(path)
    tensors = change(tensors) or tensors
    path.unlink()
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata={'format': 'pt'})


def _all(value: float, tensors: dict) -> dict:
    return {key: torch.full_like(tensor, value) for key, tensor in tensors.items()}


def _one(value: float, place: int, tensors: dict) -> None:
    tensors[sorted(tensors)[place]].view(-1)[-1] = value


def _typed(kind: torch.dtype, tensors: dict) -> dict:
    return {key: tensor.to(kind) for key, tensor in tensors.items()}


def _lacking(tensors: dict) -> None:
    tensors.pop(sorted(tensors)[0])


def _renamed(tensors: dict) -> dict:
    return {f'model.{key}': tensor for key, tensor in tensors.items()}


def _reshaped(tensors: dict) -> None:
    name = sorted(tensors)[0]
    tensors[name] = torch.zeros(*tensors[name].shape, 2)


WRONG_WEIGHTS: dict[str, Callable[[dict], Any]] = {
    'nan': functools.partial(_all, float('nan')),
    'one nan': functools.partial(_one, float('nan'), 0),
    'one nan in the middle': functools.partial(_one, float('nan'), 10),
    'one infinity': functools.partial(_one, float('inf'), -1),
    'all zero': functools.partial(_all, 0.0),
    'int8': functools.partial(_typed, torch.int8),
    'uint8': functools.partial(_typed, torch.uint8),
    'int64': functools.partial(_typed, torch.int64),
    'bool': functools.partial(_typed, torch.bool),
    'float8': functools.partial(_typed, torch.float8_e4m3fn),
    'a tensor lacks': _lacking,
    'other names': _renamed,
    'another shape': _reshaped,
    'no tensors': lambda tensors: {'x': torch.zeros(1)},
}


def load_all(folder: Path) -> None:
    """Loads all parts of the base in the working directory."""
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.base_loading import load_unet, load_vae
    from rass_mm.diffusion.one_step import cumulated_alphas
    from rass_mm.diffusion.text import TextEncoder

    base = read_base('base')
    cumulated_alphas(base.configs['scheduler'])
    load_vae(base, decoder=True)
    load_unet(base)
    TextEncoder(base).encode_texts(['a photo of a car'])


def build(folder: Path) -> None:
    """Builds the parts of a segmentor on the base in the working directory."""
    from rass_mm.diffusion.base import read_base
    from rass_mm.diffusion.extractor import DiffusionExtractor
    from rass_mm.diffusion.prompts import ClassTokens

    base = read_base('base')
    ClassTokens(base, ['sky', 'car'])
    DiffusionExtractor(base, features=['unet.down_blocks.0'])


DOORS: dict[str, Any] = {'load': load_all, 'build': build, 'train': TRAIN, 'restore': RESTORE}


def _case(kind: str, door: str, prepare: Callable, named: tuple[str, ...] = (), ok: bool = False, **more: Any) -> Case:
    return Case(f'base/{kind}/{door}', DOORS[door], ok=ok, named=named, prepare=prepare, environment=CACHE, **more)


def _files() -> Iterator[Case]:
    for file in (*CONFIGS.values(), *TOKENIZER, 'model_index.json'):
        name = (file.replace('.', r'\.'),)
        for number, (damage, data) in enumerate(BROKEN_JSON.items()):
            change = functools.partial(_damage, file, lambda _, data=data: data)
            yield _case(f'{file} {damage}', ('load', 'build', 'restore', 'build', 'train')[number % 5], change, name)
        for door in ('build', 'train'):
            yield _case(f'{file} a folder', door, functools.partial(_damage, file, lambda _: None), name)
        for damage in ('no JSON', 'cut', 'a list'):
            change = functools.partial(_damage, file, lambda _, data=BROKEN_JSON[damage]: data)
            yield _case(f'{file} {damage}', 'train', change, name)
        if file in CONFIGS.values() or file.endswith('vocab.json'):
            yield _case(f'{file} absent', 'load', functools.partial(_remove, file), name)
    for damage in DAMAGES:
        change = functools.partial(_damage, 'tokenizer/merges.txt', DAMAGES[damage])
        fatal = damage not in (
            'empty',
            'first half',
            'cut at 95 per cent',
            'cut at 99 per cent',
            'without its last byte',
        )
        if fatal:  # a shorter list of merges is a valid one
            for door in ('build', 'train'):
                yield _case(f'tokenizer/merges.txt {damage}', door, change, ('merges|tokenizer',))
    for damage in ('cut', 'a list', 'binary'):
        change = functools.partial(_damage, 'tokenizer/merges.txt', lambda _, data=BROKEN_JSON[damage]: data)
        for door in ('build', 'train'):
            yield _case(f'tokenizer/merges.txt JSON {damage}', door, change, ('merges|tokenizer',))
    yield _case('tokenizer/merges.txt absent', 'load', functools.partial(_remove, 'tokenizer/merges.txt'), ('merges',))
    change = functools.partial(_damage, 'tokenizer/merges.txt', lambda _: None)
    for door in ('build', 'train'):
        yield _case('tokenizer/merges.txt a folder', door, change, ('merges',))


def _values() -> Iterator[Case]:
    for part, keys in VALUES.items():
        for key, values in keys.items():
            for number, value in enumerate(values):
                shown = 'absent' if value is ... else json.dumps(value)[:30].replace('/', ' ')
                prepare = functools.partial(_set, CONFIGS[part], key, value)
                door = ('load', 'restore')[number % 2] if key not in MALICIOUS else ('build', 'load')[number % 2]
                if part == 'text_encoder' and door == 'restore':
                    door = 'build'
                more = {'malicious': key in MALICIOUS}
                for each in dict.fromkeys((door, *_trained(part, key, number, value))):
                    yield _case(f'{part} {key} {number} {shown}', each, prepare, (f'{key}|{part}',), **more)
    for number, value in enumerate([{'AutoTokenizer': ['evil.Tokenizer', None]}, 'evil.Tokenizer']):
        prepare = functools.partial(_set, TOKENIZER[0], 'auto_map', value)
        yield _case(f'tokenizer auto_map {number}', 'load', prepare, ('tokenizer_config',), malicious=True)
    for name, value in {'negative': -1, 'text': 'x', 'fraction': 1.5, 'beyond the embedding': 10**6}.items():
        prepare = functools.partial(_set, TOKENIZER[2], 'car</w>', value)
        yield _case(f'tokenizer id {name}', 'load', prepare, ('vocab',))


def _trained(part: str, key: str, number: int, value: Any) -> Iterator[str]:
    """Yields the doors of whole commands for the first value of each key, and for all of the most important keys."""
    first = number == 0 or value is ... or key in ('block_out_channels', 'scaling_factor')
    if first and key not in MALICIOUS:
        yield 'train'
        if part in ('vae', 'scheduler'):
            yield 'restore'


def _damaged_weights() -> Iterator[Case]:
    for part, file in WEIGHTS.items():
        doors = ('load', 'build') if part == 'text_encoder' else ('load', 'build', 'restore')
        for number, (damage, change) in enumerate(DAMAGES.items()):
            prepare = functools.partial(_damage, file, change)
            yield _case(f'{part} weights {damage}', doors[number % len(doors)], prepare, (part,))
        for number, (wrong, change) in enumerate(WRONG_WEIGHTS.items()):
            prepare = functools.partial(_weights, file, change)
            further = (*doors[2:], 'train') if wrong in ('nan', 'one nan', 'int8', 'all zero') else ()
            for door in dict.fromkeys(('load', doors[1 + number % (len(doors) - 1)], *further)):
                yield _case(f'{part} weights {wrong}', door, prepare, (part,))
        yield _case(f'{part} weights absent', 'train', functools.partial(_remove, file), (part,))
        yield _case(f'{part} weights a folder', 'load', functools.partial(_damage, file, lambda _: None), (part,))
        for index in ('null', '[]', '{"weight_map": {}}', '{"weight_map": {"x": "../../x.safetensors"}}', '{"weight'):
            name = f'{file}.index.json'
            prepare = functools.partial(_add, name, index.encode())
            kind = f'{part} index {index[:24]}'.replace('/', ' ')
            yield _case(kind, 'load', prepare, (r'index\.json',), malicious='..' in index)


def _add(file: str, content: bytes, folder: Path, kit: Path) -> None:
    path = link_base(folder, kit) / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _whole(folder: Path, kit: Path) -> None:
    link_base(folder, kit)


def _restored(folder: Path) -> str | None:
    return None if (folder / 'out' / 'good.png').stat().st_size > 1000 else 'no restored image'


def _valid() -> Iterator[Case]:
    trained = {'check': lambda folder: None if (folder / 'work' / 'iter_1.pth').is_file() else 'no checkpoint'}
    yield _case('whole', 'load', _whole, ok=True)
    yield _case('whole', 'train', _whole, ok=True, **trained)
    yield _case('whole', 'restore', _whole, ok=True, check=_restored)
    for part, file in CONFIGS.items():
        for key, value in {'_note': 'mine', '_diffusers_version': '9.9', 'quantization_config': None}.items():
            yield _case(f'{part} with {key}', 'load', functools.partial(_set, file, key, value), ok=True)
    for part, file in WEIGHTS.items():
        for kind in (torch.float16, torch.bfloat16, torch.float64):
            change = functools.partial(_weights, file, functools.partial(_typed, kind))
            yield _case(f'{part} weights as {str(kind)[6:]}', 'load', change, ok=True)
        extra = functools.partial(_weights, file, lambda tensors: tensors | {'further': torch.ones(2)})
        yield _case(f'{part} weights with a further tensor', 'load', extra, ok=True)
        zero = functools.partial(_weights, file, functools.partial(_one, 0.0, 0))
        yield _case(f'{part} weights with a zero', 'load', zero, ok=True)
    yield _case('without model_index.json', 'train', functools.partial(_remove, 'model_index.json'), ok=True, **trained)
    yield _case('without README.md', 'load', functools.partial(_remove, 'README.md'), ok=True)
    note = functools.partial(_add, 'notes/hello.txt', b'hello')
    yield _case('with further files', 'restore', note, ok=True, check=_restored)
    for name, key, value in (
        ('linear', 'beta_schedule', 'linear'),
        ('other steps', 'num_train_timesteps', 500),
        ('no schedule', 'beta_schedule', ...),
    ):
        yield _case(f'scheduler {name}', 'load', functools.partial(_set, CONFIGS['scheduler'], key, value), ok=True)
    heads = functools.partial(_set, CONFIGS['unet'], 'attention_head_dim', [2, 2, 2, 2])
    yield _case('unet heads as a list', 'load', heads, ok=True)
    for part, file in WEIGHTS.items():
        middle = functools.partial(_damage, file, functools.partial(damaged_middle, count=1))
        yield _case(f'{part} weights one byte changed', 'load', middle, ok=True)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    yield from _valid()
    yield from _files()
    yield from _values()
    yield from _damaged_weights()
