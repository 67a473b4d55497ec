"""Packs whose manifest, files or names are wrong, at the commands and functions that take a pack."""

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml
from campaign.cases import Case
from campaign.doors import DATA, RESNET, RESTORE
from campaign.faults import BROKEN_JSON, DAMAGES, damage_file, damaged_middle, wrong_values
from packed_models import copied, manifest_of, sealed, write_manifest

Change = Callable[[Path], object]
PACK = 'copy'


def _load(kind: str, folder: Path) -> None:
    import rass_mm

    getattr(rass_mm, f'load_{kind}')(PACK, device='cpu')


SEGMENTOR: dict[str, Any] = {
    'segment': f'segment $FX/good.png out --checkpoint {PACK}',
    'test': f'test {RESNET} {PACK} --work-dir w --cfg-options {DATA}',
    'pack': f'pack {PACK} again',
    'load_segmentor': functools.partial(_load, 'segmentor'),
}
RESTORER: dict[str, Any] = {
    'restore': f'restore $FX/good.png out --adapter {PACK} {RESTORE}',
    'attention': f'attention $FX/good.png --adapter {PACK} --base $FX/base --out maps',
    'pack': f'pack {PACK} again --base $FX/base',
}
INSPECT = f'inspect {PACK}'
DOORS = {'resnet-pack': SEGMENTOR, 'rass-pack': {'segment': SEGMENTOR['segment']}, 'scr-pack': RESTORER}
READERS = {pack: [door for door in DOORS[pack] if door != 'test'] for pack in ('resnet-pack', 'rass-pack')}
"""Doors that read the config of a pack; that of `test` is an argument."""
KEYS = 'format kind name model files adapters base classes palette training licence terms warnings versions provenance'
BASE_KEYS = 'base.name base.config base.weights base.source base.included rank'
TYPES = {
    'number': 'format rank',
    'text': 'kind name model licence base.name base.config base.weights base.source',
    'mapping': 'files adapters base training versions provenance',
    'list': 'classes palette terms warnings',
    'true': 'base.included',
}
VALID = {key: kind for kind, keys in TYPES.items() for key in keys.split()}
"""Type of each key, whose values of other types are wrong."""
FREE = {('base', 'null'), ('base.source', 'null'), ('rank', 'null'), ('rank', 'absent')}
"""Values of another type that are not wrong."""
UNET = 'diffusion_pytorch_model.safetensors'
FILES = {
    'resnet-pack': ('model.safetensors', 'config.yaml'),
    'rass-pack': (
        'base/unet/diffusion_pytorch_model.safetensors',
        'base/unet/config.json',
        'base/tokenizer/vocab.json',
    ),
    'scr-pack': ('adapter.safetensors',),
}
NAMES = ('../x.json', '/etc/passwd.txt', 'a/../../x.json', '..\\x.json', 'x.py', 'x.pkl', '.x.json', 'a//b.json', '')
CONFIGS: dict[str, dict[str, Any]] = {
    'dotted type of the model': {'model': {'type': 'os.system', 'command': 'touch $RASS_CANARY'}},
    'dotted type of the backbone': {'model': {'backbone': {'type': 'builtins.exec'}}},
    'dotted type of a step': {'test_pipeline': [{'type': 'evil.Step'}]},
    'custom imports': {'custom_imports': {'imports': ['evil'], 'allow_failed_imports': True}},
    'a config of Python as its base': {'_base_': 'evil.py'},
    'a hook': {'custom_hooks': [{'type': 'evil.Hook'}]},
    'weights elsewhere': {'load_from': '/etc/passwd'},
    'weights from the network': {'model': {'pretrained': 'http://127.0.0.1:1/x.pth'}},
    'weights of the backbone elsewhere': {
        'model': {'backbone': {'init_cfg': {'type': 'Pretrained', 'checkpoint': '/x.pth'}}}
    },
    'a file outside': {'model': {'backbone': {'frozen': '../../etc/passwd'}}},
}
EVIL = b"import os\nos.system('touch $RASS_CANARY')\n"
TAGS = ('object/apply:os.system', 'object/new:os.system', 'name:os.system', 'module:evil', 'object:evil.Thing')


def _copy(pack: str, change: Change, seal: bool, folder: Path, kit: Path) -> None:
    """Copies a pack of the kit and changes it; with `seal` the manifest agrees with the files again."""
    place = copied(kit / pack, folder)
    change(place)
    if seal:
        sealed(place)


def _case(name: str, door: str, pack: str, change: Change, seal: bool = False, named: tuple = (), **more: Any) -> Case:
    command = INSPECT if door == 'inspect' else DOORS[pack][door]
    prepare = functools.partial(_copy, pack, change, seal)
    return Case(f'packs/{pack} {name}/{door}', command, named=named, prepare=prepare, **more)


def _turns(pack: str, inspect: bool = True) -> Iterator[str]:
    return cycle((*DOORS[pack], *(('inspect',) if inspect else ())))


def _wrong_manifest(key: str, wrong: str, place: Path) -> None:
    write_manifest(place, dict(wrong_values(manifest_of(place), [key]))[f'{key} {wrong}'])


def _manifests() -> Iterator[Case]:
    """Yields a wrong type of each key, in turn at all doors, and files that are no manifest."""
    kinds = ('null', 'text', 'number', 'list', 'mapping', 'true', 'absent')
    for pack, keys in (('resnet-pack', KEYS), ('scr-pack', BASE_KEYS)):
        doors = _turns(pack)
        for key in keys.split():
            for wrong in kinds:
                if (key, wrong) in FREE or wrong == VALID[key]:
                    continue
                change = functools.partial(_wrong_manifest, key, wrong)
                yield _case(f'{key} {wrong}', next(doors), pack, change, named=(r'pack\.json', key.split('.')[-1]))
        for name, content in BROKEN_JSON.items():
            change = functools.partial(_write, 'pack.json', content)
            yield _case(f'manifest {name}', next(doors), pack, change, named=(r'pack\.json',))


def _write(name: str, content: bytes, place: Path) -> None:
    (place / name).write_bytes(content)


HARMLESS = ('inverted middle', 'without its last byte')
"""Damages that may leave a valid file: other values of weights, a text without its last line feed."""


def _damaged() -> Iterator[Case]:
    """Yields damaged files, with the hash of the valid file and with their own."""
    for pack, files in FILES.items():
        for file in files:
            doors = cycle(READERS[pack]) if file == 'config.yaml' else _turns(pack, inspect=False)
            for name, damage in {**DAMAGES, 'inverted middle': damaged_middle}.items():
                change = functools.partial(_damage, file, damage)
                named = (file.rpartition('/')[2].replace('.', r'\.'),)
                yield _case(f'{file} {name}', next(doors), pack, change, named=named)
                if name not in HARMLESS:
                    yield _case(f'{file} {name}, own hash', next(doors), pack, change, True, named)


def _damage(file: str, damage: Callable[[bytes], bytes], place: Path) -> None:
    damage_file(place / file, damage)


def _hostile_names() -> Iterator[Case]:
    for pack in DOORS:
        doors = _turns(pack)
        for name in NAMES:
            change = functools.partial(_listed, name)
            yield _case(f'file {name!r}', next(doors), pack, change, named=(r'pack\.json',), malicious=True)


def _listed(name: str, place: Path) -> None:
    content = manifest_of(place)
    content['files'][name] = {'bytes': 1, 'sha256': '0' * 64}
    write_manifest(place, content)


def _config(changes: dict[str, Any], place: Path) -> None:
    _write('../evil.py', EVIL, place)
    file = place / 'config.yaml'
    content = yaml.load(file.read_text().replace('!!python/tuple', ''), yaml.SafeLoader)
    file.write_text(yaml.safe_dump(_merged(content, changes)))


def _merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    inner = {
        key: _merged(content.get(key) or {}, value) if isinstance(value, dict) else value
        for key, value in changes.items()
    }
    return {**content, **inner}


def _tagged(tag: str, place: Path) -> None:
    _write('../evil.py', EVIL, place)
    text = (place / 'config.yaml').read_text()
    (place / 'config.yaml').write_text(f'{text}\nharmless: !!python/{tag} ["touch $RASS_CANARY"]\n')


def _hostile_configs() -> Iterator[Case]:
    for pack in READERS:
        for name, changes in CONFIGS.items():
            for door in READERS[pack]:
                change = functools.partial(_config, changes)
                yield _case(name, door, pack, change, True, (r'config\.yaml',), malicious=True)
        for tag in TAGS:
            for door in READERS[pack]:
                change = functools.partial(_tagged, tag)
                yield _case(f'tag {tag}', door, pack, change, True, (r'config\.yaml',), malicious=True)


def _linked(file: str, place: Path) -> None:
    (place / file).rename(place.parent / 'outside')
    (place / file).symlink_to(place.parent / 'outside')


def _pipe(file: str, place: Path) -> None:
    (place / file).unlink()
    os.mkfifo(place / file)


def _folder(file: str, place: Path) -> None:
    (place / file).unlink()
    (place / file).mkdir()


def _special() -> Iterator[Case]:
    changes = {'a link': _linked, 'a pipe': _pipe, 'a folder': _folder, 'missing': lambda f, p: (p / f).unlink()}
    for pack, files in FILES.items():
        doors = _turns(pack, inspect=False)
        for file in (*files, 'pack.json'):
            for name, change in changes.items():
                # Without a manifest, the folder is that of a training.
                lost = file == 'pack.json' and name == 'missing'
                named = ('is a folder',) if lost else (file.rpartition('/')[2].replace('.', r'\.'),)
                yield _case(f'{file} {name}', next(doors), pack, functools.partial(change, file), named=named)
    for top in ('base/unet', 'adapters'):
        change = functools.partial(_added, f'{top}/x.safetensors')
        yield _case(f'{top} added file', 'segment', 'rass-pack', change, named=(r'x\.safetensors',), malicious=True)
    yield _case('the base is a link', 'segment', 'rass-pack', functools.partial(_linked, 'base'), named=('base',))


def _added(file: str, place: Path) -> None:
    (place / file).parent.mkdir(exist_ok=True)
    (place / file).write_bytes(b'x')


def _valid() -> Iterator[Case]:
    for pack, doors in DOORS.items():
        for door in (*doors, 'inspect'):
            yield _case('unchanged', door, pack, lambda place: None, ok=True)
            yield _case('a changed card', door, pack, functools.partial(_write, 'README.md', b'mine'), ok=True)
            yield _case('sealed again', door, pack, lambda place: None, True, ok=True)
    moved = functools.partial(shutil.copytree, dirs_exist_ok=True)
    yield _case('an added text', 'segment', 'resnet-pack', functools.partial(_added, 'notes/x.txt'), ok=True)
    yield _case('the same files', 'segment', 'resnet-pack', lambda place: moved(place, place.parent / 'b'), ok=True)


def cases() -> Iterator[Case]:
    """Yields all cases of packs."""
    for group in (_manifests, _damaged, _hostile_names, _hostile_configs, _special, _valid):
        yield from group()
