"""Licences of bases and of data sets, and contradictions between them and the licence of a model.

A term is a dict with the keys `kind` ('base', 'data', 'adapter' or 'weights'), `name`, `licence`, `forbids` (a sentence
or None) and `address` (of the text of the licence, or None). A licence that is not known is `NOT_STATED`. The module
uses only the standard library.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rass_mm_cli.catalog import ENTRIES, Licence

NOT_STATED = 'not stated'
OWN = Licence('Apache-2.0')
RESEARCH = 'Use is limited to non-commercial research and education.'
DATA = {
    'CamVidDataset': ('CamVid', Licence('CC BY-NC 4.0', 'Commercial use is not allowed.')),
    'ADE20KDataset': (
        'ADE20K',
        Licence('ADE20K terms of use', RESEARCH, 'https://groups.csail.mit.edu/vision/datasets/ADE20K/terms/'),
    ),
    'ScenesDataset': ('scenes drawn by rass_mm', OWN),
    'RealLQDataset': ('RealLQ', ENTRIES['reallq'].licence),
}
"""Type of a data set in a config -> name and licence of its images and labels."""
DATA['ADE20KLQDataset'] = DATA['ADE20KDataset']
PERMISSIVE = (
    *('apache-2.0', 'mit', 'bsd-2-clause', 'bsd-3-clause', 'isc', 'unlicense', 'cc0-1.0', 'cc by 4.0', 'cc-by-4.0'),
)
"""Licences, in lower case, that restrict the use of a model in no way."""
HUB_NAMES = {
    **{name: name for name in ('apache-2.0', 'mit', 'bsd-2-clause', 'bsd-3-clause', 'cc0-1.0', 'cc-by-4.0')},
    **{'cc by 4.0': 'cc-by-4.0', 'cc by-nc 4.0': 'cc-by-nc-4.0', 'cc-by-nc-4.0': 'cc-by-nc-4.0'},
    **{'creativeml open rail++-m': 'openrail++', 'creativeml openrail-m': 'creativeml-openrail-m'},
}
"""Licence in lower case -> its key in the model cards of the Hugging Face hub."""
Term = dict[str, Any]


def term(kind: str, name: str, licence: Licence | None = None) -> Term:
    """Returns a term. A licence of None is not known."""
    known = licence or Licence(NOT_STATED)
    return {'kind': kind, 'name': name, 'licence': known.name, 'forbids': known.forbids, 'address': known.address}


def data_term(kind: str, name: str) -> Term:
    """Returns the term of a data set.

    Args:
        kind: its `type` in a config.
        name: its name, if the type is not a known one.
    """
    known = DATA.get(kind)
    return term('data', *known) if known else term('data', name)


def training_terms(config: Mapping[str, Any]) -> list[Term]:
    """Returns the terms of the training data of a config, also of data sets inside wrappers.

    The type of a data set determines its licence. Other licences are not stated.
    """
    loader = config.get('train_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    return merged(data_term(_type_of(leaf), _named(leaf)) for leaf in _leaves(dataset))


def _leaves(dataset: Any) -> Iterator[Mapping[str, Any]]:
    if not isinstance(dataset, Mapping):
        return
    inner = dataset.get('datasets', dataset.get('dataset'))
    parts = inner if isinstance(inner, list | tuple) else [inner]
    if inner is None:
        yield dataset
    for part in parts:
        yield from _leaves(part)


def _type_of(dataset: Mapping[str, Any]) -> str:
    kind = dataset.get('type') or 'data set'
    return getattr(kind, '__name__', str(kind)).rpartition('.')[2]


def _named(dataset: Mapping[str, Any]) -> str:
    folder = Path(str(dataset.get('data_root') or '')).name
    return f'{_type_of(dataset)} ({folder})' if folder else _type_of(dataset)


def merged(*lists: Iterable[Term]) -> list[Term]:
    """Returns the terms of several lists without those that are there already."""
    return list(
        {(found['kind'], found['name'], found['licence']): found for terms in lists for found in terms}.values()
    )


def conflicts(licence: str, terms: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for each term that the licence of a model contradicts.

    A licence contradicts the term of something for non-commercial use unless it is itself for non-commercial use, and a
    permissive licence contradicts every term that forbids something.
    """
    if licence == NOT_STATED or is_noncommercial(licence):
        return []
    permissive = licence.lower() in PERMISSIVE
    wrong = [
        found
        for found in terms
        if (found['forbids'] and permissive) or is_noncommercial(f'{found["licence"]} {found["forbids"]}')
    ]
    return [
        f'The licence of the model is {licence}, but that of the {found["kind"]} {found["name"]} is '
        f'{found["licence"]}: {found["forbids"] or "it is for non-commercial use."}'
        for found in wrong
    ]


def is_noncommercial(text: str) -> bool:
    """Returns whether the name or a sentence of a licence excludes commercial use."""
    words = text.lower().replace('-', ' ').split()
    return 'nc' in words or 'non commercial' in ' '.join(words) or 'commercial use is not allowed' in text.lower()
