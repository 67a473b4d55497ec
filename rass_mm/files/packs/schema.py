"""Content of `pack.json`, the manifest of a model pack."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import AfterValidator, Field, NonNegativeInt
from typing_extensions import TypedDict

from rass_mm.errors import printable

PACK = 'pack.json'
FORMAT = 1
SEGMENTOR, RESTORER = 'segmentor', 'restorer'
WEIGHTS, ADAPTER, CONFIG, METRICS, CARD = (
    'model.safetensors',
    'adapter.safetensors',
    'config.yaml',
    'metrics.json',
    'README.md',
)
ADAPTERS, BASE = 'adapters', 'base'
"""Folders of the adapters that a segmentor merges, and of the base."""
SUFFIXES = ('.safetensors', '.json', '.yaml', '.txt', '.md')
"""Suffixes of files in a pack. None of them is a format that contains code."""
PART = r'[A-Za-z0-9_][A-Za-z0-9_.\-]*'

Level = Annotated[int, Field(ge=0, le=255)]
Color = Annotated[list[Level], Field(min_length=3, max_length=3)]


def _line(text: str) -> str:
    if '\n' in text or '\t' in text or printable(text) != text:
        raise ValueError('one line of text without control characters')
    return text


Text = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_line)]
"""Text that is shown in terminals, pages and model cards."""


def _suffix(name: str) -> str:
    if not name.endswith(SUFFIXES):
        raise ValueError(f'a file of a pack, with a suffix of {", ".join(SUFFIXES)}')
    return name


def _format(number: int) -> int:
    if number != FORMAT:
        raise ValueError(f'{FORMAT}, the format that this version reads')
    return number


Name = Annotated[str, Field(pattern=rf'^{PART}(/{PART}){{0,3}}$', max_length=200), AfterValidator(_suffix)]
"""Path of a file relative to the folder of the pack, with `/`. It cannot lead out of the folder."""


class File(TypedDict):
    """Size and hash of a file."""

    bytes: NonNegativeInt
    sha256: Annotated[str, Field(pattern='^[0-9a-f]{64}$')]


Hash = Annotated[str, Field(pattern='^[0-9a-f]{8,64}$')]
Source = Annotated[str, Field(pattern=r'^[a-z0-9][a-z0-9.\-]{0,60}$')]
"""Name for `rass-mm fetch`. It becomes part of a command in messages and model cards, and is looked up as a folder."""


class PackBase(TypedDict):
    """Base of a model: its identity, the name of its source for `rass-mm fetch`, and whether the pack contains it."""

    name: Text
    config: Hash
    weights: Hash
    source: Source | None
    included: bool


class Term(TypedDict):
    """Licence of a part that a model was made of, see `rass_mm_cli.licences`."""

    kind: Literal['base', 'data', 'adapter', 'weights']
    name: Text
    licence: Text
    forbids: Text | None
    address: Text | None


class Training(TypedDict):
    """How a model was trained, as far as it is known.

    Attributes:
        config: name of the config.
        data: name of each data set.
        recipe_version: version of the degradation recipe of the training images, or None.
        iterations: number of updates, or None.
    """

    config: Text | None
    data: list[Text]
    recipe_version: int | None
    iterations: NonNegativeInt | None


class Manifest(TypedDict):
    """Content of `pack.json`. `adapters` maps a key of the config, e.g. `model.backbone.scr_adapter`, to a file."""

    format: Annotated[int, AfterValidator(_format)]
    kind: Literal['segmentor', 'restorer']
    name: Text
    model: Text
    files: Annotated[dict[Name, File], Field(min_length=1, max_length=200)]
    adapters: dict[Text, Name]
    base: PackBase | None
    classes: Annotated[list[Text], Field(max_length=65536)]
    palette: list[Color]
    rank: NotRequired[int | None]
    training: Training
    licence: Text
    terms: list[Term]
    warnings: list[Text]
    versions: dict[Text, Text]
    provenance: dict[str, Any]


def _consistent(content: Manifest) -> Manifest:
    files = set(content['files'])
    needed = {WEIGHTS, CONFIG} if content['kind'] == SEGMENTOR else {ADAPTER}
    needed |= {CARD, *content['adapters'].values()}
    if not needed <= files:
        raise ValueError(f'a manifest that lists {", ".join(sorted(needed - files))}')
    if PACK in files or len({name.lower() for name in files}) < len(files):
        raise ValueError('a manifest that lists each file once, and not itself')
    has_base = any(name.startswith(f'{BASE}/') for name in files)
    if has_base != bool(content['base'] and content['base']['included']):
        raise ValueError(f'a manifest whose base agrees with its files in {BASE}/')
    if content['kind'] == RESTORER and content['base'] is None:
        raise ValueError('a manifest with the base of the restorer')
    if content['kind'] == SEGMENTOR and not len(content['classes']) == len(content['palette']) > 0:
        raise ValueError('a manifest with as many colours as classes')
    return content


Checked = Annotated[Manifest, AfterValidator(_consistent)]
