"""Model card of a pack: `README.md` with the metadata that hubs read, made from the manifest and a test."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rass_mm.files.packs.schema import PACK, RESTORER
from rass_mm_cli.licences import HUB_NAMES, NOT_STATED

SHOWN = 200
"""Classes in the table of a card."""


def model_card(manifest: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> str:
    """Returns the text of a model card.

    Args:
        manifest: content of `pack.json`, without the card in its files.
        metrics: content of the `metrics.json` of a test, or None.
    """
    front = yaml.safe_dump(_front(manifest), sort_keys=False, allow_unicode=True)
    sections = [
        f'---\n{front}---',
        f'# {plain(manifest["name"])}',
        _summary(manifest),
        _use(manifest),
        _figures(metrics),
        _training(manifest),
        _base(manifest),
        _licences(manifest),
        _classes(manifest),
        _versions(manifest),
    ]
    return '\n\n'.join(section for section in sections if section) + '\n'


def plain(text: Any) -> str:
    """Returns a text that Markdown and HTML show as it is, in one line."""
    return re.sub(r'([\\`*_{}\[\]<>#|&!~])', r'\\\1', ' '.join(str(text).split()))


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [head, ['---'] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _front(manifest: Mapping[str, Any]) -> dict[str, Any]:
    restorer = manifest['kind'] == RESTORER
    licence = manifest['licence']
    front: dict[str, Any] = {
        'library_name': 'rass_mm',
        'pipeline_tag': 'image-to-image' if restorer else 'image-segmentation',
        'tags': ['restoration' if restorer else 'semantic-segmentation', 'rass_mm'],
    }
    if licence != NOT_STATED:
        known = HUB_NAMES.get(licence.lower())
        front |= {'license': known} if known else {'license': 'other', 'license_name': licence}
    return front


def _summary(manifest: Mapping[str, Any]) -> str:
    kind = 'Restorer of low-quality images' if manifest['kind'] == RESTORER else 'Semantic segmentation'
    rank = f', LoRA of rank {manifest["rank"]}' if manifest.get('rank') else ''
    count = f', {len(manifest["classes"])} classes' if manifest['classes'] else ''
    return f'{kind}: {plain(manifest["model"])}{rank}{count}. Packed with rass\\_mm {manifest["versions"]["rass_mm"]}.'


def _use(manifest: Mapping[str, Any]) -> str:
    restorer = manifest['kind'] == RESTORER
    command = 'restore photos/ out/ --adapter' if restorer else 'segment photos/ out/ --checkpoint'
    load, saved = ('load_restorer', 'restored') if restorer else ('load_segmentor', 'labels')
    return (
        '## Use\n\nFOLDER is this folder.\n\n'
        f'```bash\nrass-mm {command} FOLDER\n```\n\n'
        f"```python\nimport rass_mm\n\nmodel = rass_mm.{load}('FOLDER')\n"
        f"model.predict('photo.jpg').save('{saved}.png')\n```"
    )


def _figures(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return '## Metrics\n\nNo test was packed with this model.'
    rows = [(name, f'{value:.4g}') for name, value in metrics['metrics'].items()]
    facts = [f'Protocol: {plain(metrics["protocol"])}.', f'Images: {metrics["images"]}.']
    tested = {**metrics, 'config': Path(metrics['config']).name}
    facts += [f'{label}: {plain(tested[key])}.' for key, label in _TESTED.items() if tested.get(key) is not None]
    if not metrics.get('checkpoint_hash'):
        facts.append('The record does not contain the hash of the tested weights.')
    return f'## Metrics\n\n{table(("metric", "value"), rows)}\n\n{" ".join(facts)}\n\n{code(metrics["command"])}'


_TESTED = {'config': 'Config', 'mode': 'Mode', 'seed': 'Seed', 'device': 'Device', 'test_set': 'Hash of the test set'}


def code(text: str) -> str:
    """Returns a block of code. A fence inside the text cannot end it."""
    fence = '`' * (3 + max(map(len, re.findall('`+', text)), default=0))
    return f'{fence}bash\n{text.strip()}\n{fence}'


def _training(manifest: Mapping[str, Any]) -> str:
    found = manifest['training']
    rows = [
        ('data', ', '.join(found['data']) or NOT_STATED),
        ('recipe version of the degradation', found['recipe_version'] or NOT_STATED),
        ('config', found['config'] or NOT_STATED),
        ('updates', NOT_STATED if found['iterations'] is None else found['iterations']),
    ]
    return f'## Training\n\n{table(("", ""), rows)}'


def _base(manifest: Mapping[str, Any]) -> str:
    base = manifest['base']
    if base is None:
        return ''
    rows = [('name', base['name']), ('hash of the configs', base['config']), ('hash of the weights', base['weights'])]
    if base['included']:
        note = 'The base is part of this folder.'
    elif base['source']:
        note = f'The base is not part of this folder. Get it with `rass-mm fetch {base["source"]}`.'
    else:
        note = (
            'The base is not part of this folder. It is looked up by its name in the working directory and in '
            '`$RASS_MM_BASES`, and by its hash; or pass its folder with `--base`.'
        )
    return f'## Base\n\n{table(("", ""), rows)}\n\n{note}'


def _licences(manifest: Mapping[str, Any]) -> str:
    rows = [('this model', '', manifest['licence'], '', '')]
    columns = 'kind', 'name', 'licence', 'forbids', 'address'
    rows += [tuple(term[column] or '' for column in columns) for term in manifest['terms']]
    warnings = ''.join(f'\n\n**Warning**: {plain(warning)}' for warning in manifest['warnings'])
    return f'## Licences\n\n{table(("part", "name", "licence", "limits", "text"), rows)}{warnings}'


def _classes(manifest: Mapping[str, Any]) -> str:
    if not manifest['classes']:
        return ''
    rows = list(_class_rows(manifest))
    rest = f'\n\nThe other {len(rows) - SHOWN} are in `{PACK}`.' if len(rows) > SHOWN else ''
    head = ('label', 'name', 'colour') if manifest['palette'] else ('token', 'name')
    return f'## Classes\n\n{table(head, rows[:SHOWN])}{rest}'


def _class_rows(manifest: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    colors = manifest['palette']
    for label, name in enumerate(manifest['classes']):
        yield (label, name, '{:02x}{:02x}{:02x}'.format(*colors[label])) if colors else (label, name)


def _versions(manifest: Mapping[str, Any]) -> str:
    rows = list(manifest['versions'].items())
    return f'## Versions and files\n\n{table(("package", "version"), rows)}\n\nHashes of all files: `{PACK}`.'
