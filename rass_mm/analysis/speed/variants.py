"""What is measured: a config with the way it is run."""

import ast
import importlib.util
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from rass_mm.config import load_config
from rass_mm.datasets.classes import follow_classes
from rass_mm.diffusion.restorer import DTYPES
from rass_mm.errors import ConfigError

RELEASED = 'released'
SWITCHES = {'0': False, '1': True}
OPTIONS = ('dtype', 'compile', 'channels_last', 'windows', 'path', 'checkpoint')
SYNTAX = "'NAME: CONFIG [CHECKPOINT] dtype=bfloat16 compile=1 channels_last=1 windows=4 model.some.key=value'"


@dataclass(frozen=True)
class Variant:
    """A config with the way it is run.

    Args:
        name: what tables call it.
        config: file or shipped name of a config.
        checkpoint: file to load; None times fresh weights.
        dtype: 'float32', 'bfloat16' or 'float16'.
        compile: whether the heavy modules run through `torch.compile`.
        channels_last: whether images and convolutions are laid out channels last.
        windows: windows of one image at a time; None takes the config's.
        released: whether it runs as the released code does, see `released_path`.
        overrides: of the config, by dotted keys.
    """

    name: str
    config: str
    checkpoint: str | None = None
    dtype: str = 'float32'
    compile: bool = False
    channels_last: bool = False
    windows: int | None = None
    released: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f'{self.name}: dtype is {self.dtype!r}; one of {", ".join(DTYPES)} is needed.')
        if self.windows is not None and self.windows < 1:
            raise ConfigError(f'{self.name}: {self.windows} windows at a time are too few; at least 1 is needed.')


def parse_variant(text: str, first: Variant) -> Variant:
    """A variant from the command line.

    Args:
        text: see `SYNTAX`; keys with a dot are overrides of the config, `path=released` is the released path, and the
            word 'released' alone is the released path of `first`.
        first: the command line's own variant, whose options hold where the text has none. Its overrides and checkpoint
            hold for the same config.

    Raises:
        ConfigError: the text is not of that form, or has an unknown option or value.
    """
    if text.strip() == RELEASED:
        return released(replace(first, name=RELEASED))
    name, colon, rest = text.partition(':')
    words = shlex.split(rest)
    plain = [word for word in words if '=' not in word]
    if not colon or not name.strip() or not 1 <= len(plain) <= 2:
        raise ConfigError(f"--variant {text!r} is not understood; {SYNTAX} or '{RELEASED}' is needed.")
    given = dict(word.split('=', 1) for word in words if '=' in word)
    unknown = [key for key in given if '.' not in key and key not in OPTIONS]
    if unknown:
        raise ConfigError(
            f'--variant {text!r} has no option {unknown[0]!r}; there are {", ".join(OPTIONS)}, and keys of the config '
            f'with a dot.'
        )
    same = plain[0] == first.config
    checkpoint = plain[1] if len(plain) == 2 else given.get('checkpoint', first.checkpoint if same else None)
    overrides = {key: _value(value) for key, value in given.items() if '.' in key}
    variant = replace(
        first,
        name=name.strip(),
        config=plain[0],
        checkpoint=checkpoint,
        overrides={**(first.overrides if same else {}), **overrides},
    )
    if given.get('path', RELEASED) != RELEASED:
        raise ConfigError(f'--variant {text!r}: path is {given["path"]!r}; only {RELEASED!r} is known.')
    variant = released(variant) if 'path' in given else variant
    return replace(variant, **_options(text, given))


def released(variant: Variant) -> Variant:
    """The same config by the released path: float32, one window at a time, eager, contiguous."""
    return replace(variant, dtype='float32', compile=False, channels_last=False, windows=1, released=True)


def _options(text: str, given: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {'dtype': given['dtype']} if 'dtype' in given else {}
    for key in ('compile', 'channels_last'):
        if key in given:
            if given[key] not in SWITCHES:
                raise ConfigError(f'--variant {text!r}: {key} is {given[key]!r}; 0 or 1 is needed.')
            found[key] = SWITCHES[given[key]]
    if 'windows' in given:
        if not given['windows'].isdecimal():
            raise ConfigError(f'--variant {text!r}: windows is {given["windows"]!r}; a whole number is needed.')
        found['windows'] = int(given['windows'])
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_names(variants: list[Variant]) -> None:
    """Raises a ConfigError where two variants have one name."""
    names = [variant.name for variant in variants]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ConfigError(f'Two variants are called {double!r}. Give names: --variant {SYNTAX}')


def settled(variant: Variant) -> tuple[Config, list[str]]:
    """The variant's config as it is run, and what a reader of the numbers should know about it.

    A restorer's losses are no part of the job: the perceptual one is left out, because its weights need not be there;
    the VSD loss stays for its critic, which a checkpoint holds.

    Raises:
        ConfigError: no such config, or one without a model.
    """
    config = load_config(variant.config, dict(variant.overrides))
    if config.get('model') is None:
        raise ConfigError(f'{variant.config} has no model: name a config of a segmentor or restorer.')
    follow_classes(config)
    model = config.model
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    losses = model.get('losses') or {}
    if losses:
        losses.perceptual = None
    if losses.get('score'):
        losses.score.negative_prompt = ''  # of the loss alone; a base with random weights has no room for the real one
    notes = released_path(model) if variant.released else []
    if variant.checkpoint is None:
        notes.append('fresh weights (no checkpoint); speed does not depend on their values')
    elif not Path(variant.checkpoint).is_file():
        raise ConfigError(f'{variant.name}: the checkpoint {variant.checkpoint} does not exist.')
    if variant.windows is not None:
        places = windowed(model)
        for place in places:
            place['window_batch'] = variant.windows
        if not places and not variant.released:
            notes.append(f'windows={variant.windows} has no effect: this config does not run windows in batches')
    return config, notes


def windowed(model: ConfigDict) -> list[ConfigDict]:
    """The parts of a model's config in which `window_batch` counts."""
    if model.type == 'RestoreThenSegment':
        return ([model.restorer] if model.restorer.get('window') else []) + windowed(model.segmentor)
    test_cfg = model.get('test_cfg') or {}
    sliding = model.type == 'RASS' and test_cfg.get('mode') in ('slide', 'stitched')
    tiled = model.type.endswith('SCRRestorer') and test_cfg.get('window')
    return [test_cfg] if sliding or tiled else []


def released_path(model: ConfigDict) -> list[str]:
    """Changes a model's config to the scheme of the released segmentor, where it has windows or tags; returns notes."""
    if model.type == 'RestoreThenSegment':
        return released_path(model.segmentor)
    if model.type != 'RASS':
        return []
    if windowed(model):
        model.test_cfg.mode = 'stitched'
    tags = {'type': 'TagPrompt', 'tagger': {'type': 'RAMTagger'}, 'truncate': True}
    own = model.get('prompt') or {}
    tags = own if own.get('type') == 'TagPrompt' else tags
    if not _is_ram(tags):
        return []
    lacking = lacking_tagger(tags['tagger'])
    if lacking is None:
        model.prompt = ConfigDict(tags)
        return []
    if _is_ram(own):
        model.prompt = ConfigDict(type='EmptyPrompt')
    return [f'the released path without its tagger: {lacking}']


def _is_ram(prompt: Mapping[str, Any]) -> bool:
    tagger = prompt.get('tagger')
    return isinstance(tagger, Mapping) and tagger.get('type') == 'RAMTagger'


def lacking_tagger(tagger: Mapping[str, Any]) -> str | None:
    """Why a `RAMTagger` of this config cannot run; None if it can."""
    if importlib.util.find_spec('ram') is None:
        return 'the package ram is not installed'
    weights = Path(tagger.get('weights', 'weights/ram_swin_large_14m.pth'))
    return None if weights.is_file() else f"RAM's weights {weights} are not there"
