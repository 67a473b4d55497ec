"""Checkpoints with wrong entries, damaged bytes, other models and other states of training."""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from campaign.cases import Case
from campaign.doors import BASED, DOORS, PRETRAINED, RASS, RUN, at, write
from campaign.faults import DAMAGES, damaged_middle
from safetensors.torch import save_file

Change = Callable[[dict], Any]
MEANT = 'given|checkpoint|Checkpoint'
RASS_RUN = f'train {RASS} --work-dir w --cfg-options {RUN} {BASED}'
FOR_RASS = {
    'test': DOORS['test RASS'],
    'resume': f'{RASS_RUN} train_cfg.max_iters=4'.replace('--cfg-options', '--resume @ --cfg-options'),
    'load_from': f'{RASS_RUN} load_from=@',
    'segment': 'segment $FX/good.png out --checkpoint @ --base $FX/base',
}
FOR_RESNET = {name: str(DOORS[name]) for name in ('test', 'resume', 'load_from', 'segment', 'robustness', 'benchmark')}


def _state(change: Change) -> Change:
    """Returns a change of the state dict only."""
    return lambda loaded: {**loaded, 'state_dict': change(dict(loaded['state_dict']))}


def _first(change: Callable[[torch.Tensor], Any]) -> Change:
    """Returns a change of the first floating-point weight."""

    def changed(state: dict) -> dict:
        name = next(name for name, value in state.items() if getattr(value, 'is_floating_point', bool)() and value.ndim)
        return {**state, name: change(state[name])}

    return _state(changed)


def _put(value: Any, *keys: str) -> Change:
    """Returns a change that sets a nested entry, or removes it if the value is `...`."""

    def changed(loaded: dict) -> dict:
        inner = loaded
        for key in keys[:-1]:
            inner = inner[key]
        if value is ...:
            inner.pop(keys[-1])
        else:
            inner[keys[-1]] = value
        return loaded

    return changed


def _poisoned(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.view(-1)[0] = float('nan')
    return value


CONTENTS: dict[str, Change] = {
    'a list': lambda loaded: [loaded],
    'a tensor': lambda loaded: torch.ones(3),
    'a text': lambda loaded: 'weights',
    'an empty dict': lambda loaded: {},
    'no weights': lambda loaded: {'meta': loaded['meta']},
    'state_dict None': _put(None, 'state_dict'),
    'state_dict a list': _state(lambda state: list(state.values())),
    'state_dict a text': _put('weights', 'state_dict'),
    'state_dict empty': _state(lambda state: {}),
    'keys are numbers': _state(lambda state: dict(enumerate(state.values()))),
    'a value is a number': _first(lambda value: 5),
    'a value is None': _first(lambda value: None),
    'a value is a list': _first(lambda value: value.flatten()[:3].tolist()),
    'a value is a dict': _first(lambda value: {'a': value}),
    'integers': _state(
        lambda state: {key: value.int() if value.is_floating_point() else value for key, value in state.items()}
    ),
    'one integer tensor': _first(lambda value: value.int()),
    'booleans': _first(lambda value: value > 0),
    'complex': _first(lambda value: value.to(torch.complex64)),
    'NaN': _first(_poisoned),
    'infinity': _first(lambda value: value / 0),
    'NaN beside an optimizer': lambda loaded: {**_first(_poisoned)(loaded)['state_dict'], 'optimizer': {}},
    'transposed': _first(lambda value: value.flip(0).unsqueeze(0)),
    'an empty tensor': _first(lambda value: value.flatten()[:0]),
    'half of the tensors': _state(lambda state: dict(list(state.items())[::2])),
    'a further tensor': _state(lambda state: {**state, 'decode_head.further.weight': torch.ones(3)}),
    'other names': _state(lambda state: {f'x.{key}': value for key, value in state.items()}),
    'meta None': _put(None, 'meta'),
    'meta a text': _put('meta', 'meta'),
    'meta a list': _put([1], 'meta'),
    'iter a text': _put('five', 'meta', 'iter'),
    'iter a float': _put(2.5, 'meta', 'iter'),
    'epoch a text': _put('five', 'meta', 'epoch'),
    'epoch a whole float': _put(3.0, 'meta', 'epoch'),
    'cfg a number': _put(7, 'meta', 'cfg'),
    'cfg a dict': _put({'model': {}}, 'meta', 'cfg'),
    'classes a text': _put({'classes': 'sky'}, 'meta', 'dataset_meta'),
    'dataset_meta a text': _put('scenes', 'meta', 'dataset_meta'),
    'classes a number': _put({'classes': 5}, 'meta', 'dataset_meta'),
    'classes of numbers': _put({'classes': [1, 2]}, 'meta', 'dataset_meta'),
}
"""Changes of the content that every door refuses, but those in `ACCEPTED`."""
UNUSED = ('iter a text', 'iter a float', 'epoch a text', 'epoch a whole float', 'cfg a number', 'cfg a dict')
WRONG_CLASSES = ('dataset_meta a text', 'classes a number', 'classes of numbers', 'classes a text')
"""Values of `meta` that a resumed run refuses, and those that `segment` needs as well."""
ACCEPTED = {
    ('half of the tensors', 'load_from'),  # a new run may start from some tensors; mmengine names the others
    ('a further tensor', 'load_from'),
    ('transposed', 'load_from'),
    ('an empty tensor', 'load_from'),
    ('a further tensor', 'test'),  # a warning names it, as in `FURTHER`
    ('a further tensor', 'segment'),
    ('meta None', 'test'),  # the same as no meta, which only a resumed run needs
    ('meta None', 'load_from'),
    ('meta None', 'segment'),
    *((name, door) for name in UNUSED for door in ('test', 'load_from', 'segment')),  # a warning names them
    *((name, door) for name in WRONG_CLASSES for door in ('test', 'load_from')),
    ('classes a text', 'segment'),
}
ELSEWHERE = {
    'params_ema': lambda loaded: {'params_ema': loaded['state_dict'], 'iter': 5},
    'teacher': lambda loaded: {'teacher': loaded['state_dict'], 'student': loaded['state_dict'], 'epoch': 5},
    'module': lambda loaded: {'module': {'model': loaded['state_dict']}, 'optimizer': {}, 'meta': loaded['meta']},
}
"""Files that have no `state_dict` and that other programs write. The key is an entry that the message must name."""
FURTHER = {
    'auxiliary_head.conv_seg.weight': torch.ones(3),
    'ema_backbone.conv1.weight': torch.ones(3),
}
"""Tensors of a training that the config of a test may lack."""
RECORDS: dict[str, Any] = {
    'a text': 'text',
    'a list': [1, 2],
    'no JSON': b'not JSON',
    'empty': b'',
    'not UTF-8': b'\xff\xfe',
    'deep': b'[' * 50_000,
    'JSON of a list': b'[1, 2]',
    'JSON of a number': b'5',
    'JSON of a text': b'"text"',
    'an empty mapping': {},
    'fractions': torch.tensor([0.5, 7.0]),
    'large numbers': torch.tensor([2**40, -5]),
    'of no dimension': torch.tensor(5, dtype=torch.uint8),
    'no base': {'merged_adapters': [], 'classes': ['a']},
    'base a text': {'base': 'sd', 'merged_adapters': [], 'classes': ['a']},
    'base without weights': {'base': {'config': 'a'}, 'merged_adapters': [], 'classes': ['a']},
    'no adapters': {'base': {'config': 'a', 'weights': 'b'}, 'classes': ['a']},
    'adapters a text': {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': 'x', 'classes': ['a']},
    'no classes': {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': []},
    'classes a number': {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': [], 'classes': 5},
    'another base': {'base': {'config': 'a', 'weights': 'b'}, 'merged_adapters': [], 'classes': ['a']},
}
"""Values of the record `_extra_state` in the checkpoint of a RASS."""
TRAINING: dict[str, Change] = {
    'no meta': _put(..., 'meta'),
    'no iter': _put(..., 'meta', 'iter'),
    'no epoch': _put(..., 'meta', 'epoch'),
    'iter negative': _put(-5, 'meta', 'iter'),
    'iter beyond the end': _put(10**9, 'meta', 'iter'),
    'only weights': lambda loaded: {'state_dict': loaded['state_dict']},
    'optimizer a text': _put('adam', 'optimizer'),
    'optimizer empty': _put({}, 'optimizer'),
    'optimizer None': _put(None, 'optimizer'),
    'optimizer a list': _put([1], 'optimizer'),
    'no state': _put(..., 'optimizer', 'state'),
    'state a list': _put([1], 'optimizer', 'state'),
    'state of texts': _put({0: 'a'}, 'optimizer', 'state'),
    'state NaN': lambda loaded: _first_state(loaded, float('nan')),
    'state infinite': lambda loaded: _first_state(loaded, float('inf')),
    'no param_groups': _put(..., 'optimizer', 'param_groups'),
    'param_groups empty': _put([], 'optimizer', 'param_groups'),
    'param_groups a text': _put('groups', 'optimizer', 'param_groups'),
    'param_groups of numbers': _put([1, 2], 'optimizer', 'param_groups'),
    'schedulers a text': _put('cosine', 'param_schedulers'),
    'schedulers of texts': _put(['cosine'], 'param_schedulers'),
    'schedulers of numbers': _put([1], 'param_schedulers'),
    'no message_hub': _put(..., 'message_hub'),
    'message_hub a text': _put('hub', 'message_hub'),
    'message_hub a list': _put([], 'message_hub'),
    'no log_scalars': _put(..., 'message_hub', 'log_scalars'),
    'log_scalars a list': _put([1], 'message_hub', 'log_scalars'),
    'runtime_info a text': _put('a', 'message_hub', 'runtime_info'),
    'resumed_keys a number': _put(5, 'message_hub', 'resumed_keys'),
}
"""Changes that only matter when a run is resumed, and that end it."""


def _averaged(change: dict[str, Any], loaded: dict) -> dict:
    averages = {f'module.{key}': value for key, value in loaded['state_dict'].items()}
    return {**loaded, 'ema_state_dict': {**averages, 'steps': torch.tensor(3), **change}}


AVERAGES: dict[str, Change] = {
    'valid averages': functools.partial(_averaged, {}),
    'averages with NaN': functools.partial(
        _averaged, {'module.decode_head.conv_seg.bias': torch.full((1,), float('nan'))}
    ),
    'averages with an unknown name': functools.partial(_averaged, {'module.other': torch.ones(3)}),
    'averages with another shape': functools.partial(_averaged, {'module.decode_head.conv_seg.bias': torch.ones(999)}),
    'averages with a number of steps': functools.partial(_averaged, {'steps': 3}),
    'averages a list': lambda loaded: {**loaded, 'ema_state_dict': [1]},
}
"""Changes of the averages that a run with an EMAHook resumes from."""
WARNED: dict[str, tuple[Change, str, str]] = {
    'no schedulers': (_put(..., 'param_schedulers'), '', 'other settings than the config'),
    'fewer schedulers': (
        lambda loaded: {**loaded, 'param_schedulers': loaded['param_schedulers'][:-1]},
        '',
        'other settings than the config',
    ),
    'another batch size': (lambda loaded: loaded, 'train_dataloader.batch_size=3', 'batch_size'),
    'another learning rate': (
        lambda loaded: loaded,
        'optim_wrapper.optimizer.lr=0.5',
        'other settings than the config',
    ),
    'another seed': (lambda loaded: loaded, 'randomness.seed=77', 'seed'),
}
"""Changes after which a run continues with a warning: change, further options, words of the warning."""


def _first_state(loaded: dict, value: float) -> dict:
    state = next(iter(loaded['optimizer']['state'].values()))
    name = next(name for name, part in state.items() if isinstance(part, torch.Tensor) and part.ndim)
    state[name] = torch.full_like(state[name], value)
    return loaded


def _changed(change: Change, source: str, folder: Path, kit: Path) -> None:
    loaded = torch.load(kit / source, weights_only=False)
    torch.save(change(loaded), folder / 'given.pth')


def _bytes(damage: Callable[[bytes], bytes], source: str, folder: Path, kit: Path) -> None:
    write('given.pth', damage((kit / source).read_bytes()), folder, kit)


def _record(value: Any) -> Any:
    data = json.dumps(value).encode() if isinstance(value, dict) else value
    return torch.tensor(list(data), dtype=torch.uint8) if isinstance(data, bytes) else data


def _case(name: str, door: str, command: str, prepare: Callable, **options: Any) -> Case:
    options.setdefault('named', () if options.get('ok') else (MEANT,))
    return Case(f'checkpoints/{name}/{door}', command.replace('@', 'given.pth'), prepare=prepare, **options)


def _contents() -> Iterator[Case]:
    for name, change in CONTENTS.items():
        prepare = functools.partial(_changed, change, 'resnet.pth')
        for door in ('test', 'resume', 'load_from', 'segment'):
            yield _case(name, door, FOR_RESNET[door], prepare, ok=(name, door) in ACCEPTED)
        if name.startswith(('state_dict', 'keys', 'a list', 'an empty dict', 'NaN')):
            yield _case(name, 'init_cfg', at('init_cfg', '@'), prepare)
            yield _case(name, 'fine_tune', at('fine_tune', '@'), prepare)
    for name in ('NaN', 'integers', 'half of the tensors', 'a value is a number', 'other names', 'a further tensor'):
        prepare = functools.partial(_changed, CONTENTS[name], 'rass.pth')
        for door, command in FOR_RASS.items():
            yield _case(f'RASS {name}', door, command, prepare)


def _elsewhere() -> Iterator[Case]:
    for name, change in ELSEWHERE.items():
        prepare = functools.partial(_changed, change, 'resnet.pth')
        for door in ('test', 'resume', 'load_from', 'segment', 'robustness', 'benchmark'):
            named = (name,) if door not in ('segment', 'benchmark') else ('given|checkpoint',)
            yield _case(f'weights in {name}', door, FOR_RESNET[door], prepare, named=named)
        yield _case(f'weights in {name}', 'init_cfg', at('init_cfg', '@'), prepare, named=(name,))


def _records() -> Iterator[Case]:
    for name, value in RECORDS.items():
        change = _state(functools.partial(lambda value, state: {**state, '_extra_state': _record(value)}, value))
        for door in ('test', 'load_from', 'resume'):
            yield _case(f'record {name}', door, FOR_RASS[door], functools.partial(_changed, change, 'rass.pth'))
        if isinstance(value, dict | bytes | torch.Tensor):
            prepare = functools.partial(
                _safetensors, lambda state, value=value: {**state, '_extra_state': _record(value)}
            )
            command = FOR_RASS['test'].replace('@', 'given.safetensors')
            yield Case(f'checkpoints/record {name}/safetensors', command, named=('given',), prepare=prepare)
    for name, change in {
        'NaN': lambda state: {
            key: _poisoned(value) if value.is_floating_point() else value for key, value in state.items()
        },
        'no record': lambda state: {key: value for key, value in state.items() if key != '_extra_state'},
        'half': lambda state: {'_extra_state': state['_extra_state'], **dict(list(state.items())[::2])},
    }.items():
        command = FOR_RASS['test'].replace('@', 'given.safetensors')
        yield Case(
            f'checkpoints/safetensors {name}/test',
            command,
            named=('given|checkpoint',),
            prepare=functools.partial(_safetensors, change),
        )


def _safetensors(change: Change, folder: Path, kit: Path) -> None:
    state = torch.load(kit / 'rass.pth', weights_only=False)['state_dict']
    values = change({key: value.contiguous().clone() for key, value in state.items()})
    save_file({key: value for key, value in values.items() if value.numel()}, folder / 'given.safetensors')


def _training() -> Iterator[Case]:
    for name, change in TRAINING.items():
        prepare = functools.partial(_changed, change, 'resnet.pth')
        yield _case(f'training {name}', 'resume', FOR_RESNET['resume'], prepare)
    for name, (change, options, words) in WARNED.items():
        prepare = functools.partial(_changed, change, 'resnet.pth')
        command = f'{FOR_RESNET["resume"]} {options}'
        yield _case(f'warning {name}', 'resume', command, prepare, ok=True, check=functools.partial(_said, words))
    averages = 'default_hooks.averages.type=EMAHook'
    for name, change in AVERAGES.items():
        prepare, ok = functools.partial(_changed, change, 'resnet.pth'), name.startswith('valid')
        named = () if ok else ('ema_state_dict',)
        yield _case(name, 'resume', f'{FOR_RESNET["resume"]} {averages}', prepare, ok=ok, named=named)
    settings = {'_delete_': True, 'type': 'SGD', 'lr': 0.1, 'momentum': 0.9}
    other = ' '.join(f'optim_wrapper.optimizer.{key}={value}' for key, value in settings.items())
    prepare = functools.partial(_changed, lambda loaded: loaded, 'resnet.pth')
    yield _case('another optimizer', 'resume', f'{FOR_RESNET["resume"]} {other}', prepare, named=('optim',))


def _said(words: str, folder: Path) -> str | None:
    return None if words in folder.with_suffix('.log').read_text(errors='replace') else f'nothing is said of {words}'


def _zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(4096) + data[middle + 4096 :]


def _flipped(part: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        place = int(len(data) * part)
        return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]

    return flip


RAW = {
    **DAMAGES,
    '64 bytes in the middle': damaged_middle,
    'a block of zeros': _zeroed,
    **{f'one bit at {part}': _flipped(part) for part in (0.1, 0.3, 0.5, 0.7, 0.9)},
}


def _raw() -> Iterator[Case]:
    for name, damage in RAW.items():
        for door in ('test', 'resume', 'load_from', 'segment', 'robustness', 'benchmark'):
            quick = door in ('segment', 'benchmark') or name in ('a block of zeros', 'one bit at 0.5', 'first half')
            if quick or door == 'test':
                prepare = functools.partial(_bytes, damage, 'resnet.pth')
                yield _case(f'bytes {name}', door, FOR_RESNET[door], prepare)
        yield _case(f'bytes {name}', 'test RASS', FOR_RASS['test'], functools.partial(_bytes, damage, 'rass.pth'))


def _copied(source: str, folder: Path, kit: Path) -> None:
    write('given.pth', (kit / source).read_bytes(), folder, kit)


def _other_models() -> Iterator[Case]:
    for source, door, command in (
        ('rass.pth', 'test', FOR_RESNET['test']),
        ('rass.pth', 'resume', FOR_RESNET['resume']),
        ('rass.pth', 'load_from', FOR_RESNET['load_from']),
        ('rass.pth', 'robustness', FOR_RESNET['robustness']),
        ('scr.pth', 'test', FOR_RESNET['test']),
        ('scr.pth', 'segment', FOR_RESNET['segment']),
        ('resnet.pth', 'test RASS', FOR_RASS['test']),
        ('resnet.pth', 'resume RASS', FOR_RASS['resume']),
        ('resnet.pth', 'load_from RASS', FOR_RASS['load_from']),
        ('scr.pth', 'test RASS', FOR_RASS['test']),
        ('adapter.safetensors', 'test', FOR_RESNET['test']),
        ('good.png', 'test', FOR_RESNET['test']),
        ('metrics.json', 'resume', FOR_RESNET['resume']),
    ):
        yield _case(f'{source} of another model', door, command, functools.partial(_copied, source))


def _controls() -> Iterator[Case]:
    for door, command in FOR_RESNET.items():
        yield _case('valid', door, command, functools.partial(_copied, 'resnet.pth'), ok=True)
    for door, command in FOR_RASS.items():
        yield _case('valid RASS', door, command, functools.partial(_copied, 'rass.pth'), ok=True)
    changes: dict[str, Change] = {
        'float64': _state(
            lambda state: {key: value.double() if value.is_floating_point() else value for key, value in state.items()}
        ),
        'float16': _state(
            lambda state: {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
        ),
        'without counts': _state(
            lambda state: {key: value for key, value in state.items() if not key.endswith('batches_tracked')}
        ),
        'without meta': lambda loaded: {'state_dict': loaded['state_dict']},
        'only tensors': lambda loaded: loaded['state_dict'],
        'further meta': _put({'a': [1, None]}, 'meta', 'further'),
        'prefix of a wrapper': _state(lambda state: {f'module.{key}': value for key, value in state.items()}),
        'counts as numbers': _state(
            lambda state: {key: 5 if key.endswith('batches_tracked') else value for key, value in state.items()}
        ),
        'another order': _state(lambda state: dict(reversed(state.items()))),
        'averages beside the weights': lambda loaded: {**loaded, 'params_ema': loaded['state_dict'], 'module': 'x'},
        'extra state of another package': _state(
            lambda state: {**state, '_extra_state': {'scale': 1}, 'backbone._extra_state': torch.ones(2)}
        ),
    }
    for name, change in changes.items():
        for door in ('test', 'load_from', 'benchmark'):
            prepare = functools.partial(_changed, change, 'resnet.pth')
            yield _case(f'valid {name}', door, FOR_RESNET[door], prepare, ok=True)
    yield Case(
        'checkpoints/valid safetensors/test',
        FOR_RASS['test'].replace('@', 'given.safetensors'),
        ok=True,
        prepare=functools.partial(_safetensors, lambda state: state),
    )
    keep = {'init_cfg': f'{at("init_cfg", "@")} {PRETRAINED}.prefix=backbone.', 'fine_tune': at('fine_tune', '@')}
    for door, command in keep.items():
        yield _case('valid', door, str(command), functools.partial(_copied, 'resnet.pth'), ok=True)


def _further() -> Iterator[Case]:
    for door in ('test', 'robustness'):
        prepare = functools.partial(_changed, _state(lambda state: {**state, **FURTHER}), 'resnet.pth')
        said = functools.partial(_said, '2 tensors that the model has no place for') if door == 'test' else None
        yield _case('valid with an auxiliary head', door, FOR_RESNET[door], prepare, ok=True, check=said)
    prepare = functools.partial(_changed, _put(torch.tensor(2), 'meta', 'iter'), 'resnet.pth')
    yield _case('valid iter a tensor', 'resume', FOR_RESNET['resume'], prepare, ok=True)
    prepare = functools.partial(_changed, _state(lambda state: {**state, **FURTHER}), 'rass.pth')
    yield _case('RASS two further tensors', 'test', FOR_RASS['test'], prepare)
    further = {'auxiliary_head.conv_seg.weight': torch.ones(3)}
    prepare = functools.partial(_changed, _state(lambda state: {**state, **further}), 'rass.pth')
    said = functools.partial(_said, '1 tensor that the model has no place for')
    yield _case('valid RASS with an auxiliary head', 'test', FOR_RASS['test'], prepare, ok=True, check=said)


def cases() -> Iterator[Case]:
    """Yields the cases of this group."""
    for made in (_contents, _elsewhere, _records, _training, _raw, _other_models, _controls, _further):
        yield from made()
