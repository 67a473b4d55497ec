"""Variants of a benchmark: configs with their run options."""

import ast
import importlib.util
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from rass_mm.config import load_config
from rass_mm.config.building import explained
from rass_mm.config.settings import check_settings
from rass_mm.datasets.classes import follow_classes
from rass_mm.devices import DTYPES
from rass_mm.engine.ready import Preparation
from rass_mm.errors import ConfigError
from rass_mm.export.metadata import METADATA, read_exported

RELEASED = 'released'
SWITCHES = {'0': False, '1': True}
OPTIONS = ('dtype', 'compile', 'prepared', 'windows')
SYNTAX = "'NAME: CONFIG [CHECKPOINT] dtype=bfloat16 compile=1 prepared=0 windows=4 model.some.key=value'"
EXPORTED_SYNTAX = "'NAME: FOLDER'"


@dataclass(frozen=True)
class Variant:
    """A config with its run options.

    Args:
        name: name of the variant in tables.
        config: a config file, or the name of a shipped config.
        checkpoint: checkpoint file to load; None uses random weights.
        dtype: 'float32', 'bfloat16' or 'float16'.
        compile: whether to compile the most expensive modules with `torch.compile`.
        channels_last: whether convolutions use the channels-last layout, see `Preparation`.
        prepared: whether the model is prepared for prediction, see `rass_mm.engine.ready`. An unprepared model computes
            in float32 with the network as it was trained.
        windows: number of windows of one image per batch; None uses the value of the config.
        released: whether to follow the released code, see `released_path`.
        exported: whether `config` is the folder of an exported model and `dtype` the dtype of its weights.
        overrides: config overrides by dotted key.
    """

    name: str
    config: str
    checkpoint: str | None = None
    dtype: str = 'float32'
    compile: bool = False
    channels_last: bool | None = None
    prepared: bool = True
    windows: int | None = None
    released: bool = False
    exported: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES and not self.exported:
            raise ConfigError(f'{self.name}: dtype is {self.dtype!r}. Set it to one of {", ".join(DTYPES)}.')
        if not self.prepared and (self.dtype != 'float32' or self.compile or self.channels_last):
            raise ConfigError(
                f'{self.name}: an unprepared model (prepared=0) computes in float32. Remove dtype, compile and '
                f'channels_last.'
            )
        if self.windows is not None and self.windows < 1:
            raise ConfigError(f'{self.name}: windows is {self.windows}, but it must be at least 1.')

    @property
    def preparation(self) -> Preparation | None:
        """How the model is prepared, or None."""
        return Preparation(self.dtype, self.channels_last, self.compile) if self.prepared else None


def parse_variant(text: str, first: Variant) -> Variant:
    """Parses a variant from the command line.

    Args:
        text: see `SYNTAX` and `EXPORTED_SYNTAX`. Keys with a dot override the config. The word 'released' alone means
            `first` as `released` changes it.
        first: the first variant of the command line, which provides the defaults of options. Its overrides and
            checkpoint are defaults only for variants of the same config.

    Raises:
        ConfigError: the text cannot be parsed, or contains an unknown option or an invalid value.
    """
    if text.strip() == RELEASED:
        return released(replace(first, name=RELEASED))
    name, colon, rest = text.partition(':')
    words = shlex.split(rest)
    plain = [word for word in words if '=' not in word]
    if not colon or not name.strip() or not 1 <= len(plain) <= 2:
        raise ConfigError(f"--variant {text!r} cannot be parsed. Write {SYNTAX}, {EXPORTED_SYNTAX} or '{RELEASED}'.")
    if (Path(plain[0]) / METADATA).is_file():
        return _exported(name.strip(), plain[0], text, len(words))
    given = dict(word.split('=', 1) for word in words if '=' in word)
    unknown = [key for key in given if '.' not in key and key not in OPTIONS]
    if unknown:
        raise ConfigError(
            f'--variant {text!r}: unknown option {unknown[0]!r}. Use {", ".join(OPTIONS)}, or config keys with a dot.'
        )
    same = plain[0] == first.config
    checkpoint = plain[1] if len(plain) == 2 else first.checkpoint if same else None
    overrides = {key: _value(value) for key, value in given.items() if '.' in key}
    variant = replace(
        first,
        name=name.strip(),
        config=plain[0],
        checkpoint=checkpoint,
        overrides={**(first.overrides if same else {}), **overrides},
    )
    return replace(variant, **_options(text, given))


def released(variant: Variant) -> Variant:
    """Returns the variant with the options of the released code: float32, unprepared, one window at a time."""
    plain = {'dtype': 'float32', 'compile': False, 'channels_last': False, 'prepared': False}
    return replace(variant, **plain, windows=1, released=True)


def _exported(name: str, folder: str, text: str, words: int) -> Variant:
    if words > 1:
        raise ConfigError(f'--variant {text!r}: an exported model has no options. Write {EXPORTED_SYNTAX}.')
    return Variant(name, folder, dtype=read_exported(folder).metadata['dtype'], exported=True)


def _options(text: str, given: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {'dtype': given['dtype']} if 'dtype' in given else {}
    for key in ('compile', 'prepared'):
        if key in given:
            if given[key] not in SWITCHES:
                raise ConfigError(f'--variant {text!r}: {key} is {given[key]!r}, but it must be 0 or 1.')
            found[key] = SWITCHES[given[key]]
    if 'windows' in given:
        if not given['windows'].isdecimal():
            raise ConfigError(f'--variant {text!r}: windows is {given["windows"]!r}, but it must be an integer.')
        found['windows'] = int(given['windows'])
    return found


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def check_names(variants: list[Variant]) -> None:
    """Raises a ConfigError if two variants have the same name."""
    names = [variant.name for variant in variants]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise ConfigError(f'Two variants are named {double!r}. Give each variant its own name: --variant {SYNTAX}')


def settled(variant: Variant) -> tuple[Config, list[str]]:
    """Returns the final config of a variant, and notes for readers of the results.

    A benchmark does not compute the losses of a restorer. The perceptual loss is removed from its config, because its
    weights may be missing. The VSD loss is kept, because checkpoints contain the weights of its critic.

    Raises:
        ConfigError: the config or the checkpoint does not exist, or the config has no model.
    """
    config = load_config(variant.config, dict(variant.overrides))
    check_settings(config, 'model')
    with explained(config, 'model'):
        follow_classes(config)
    model = config.model
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    losses = model.get('losses') or {}
    if losses:
        losses.perceptual = None
    if losses.get('score'):
        losses.score.negative_prompt = ''  # used only by the loss; a random-weight base has no room for the real one
    notes = released_path(model) if variant.released else []
    if variant.checkpoint is None:
        notes.append('fresh weights (no checkpoint); speed does not depend on their values')
    elif not Path(variant.checkpoint).is_file():
        raise ConfigError(f'{variant.name}: the checkpoint {variant.checkpoint} does not exist. Check the path.')
    if variant.windows is not None:
        places = windowed(model)
        for place in places:
            place['window_batch'] = variant.windows
        if not places and not variant.released:
            notes.append(f'windows={variant.windows} has no effect: this config does not run windows in batches')
    return config, notes


def windowed(model: ConfigDict) -> list[ConfigDict]:
    """Returns the parts of a model config in which `window_batch` has an effect."""
    if model.type == 'RestoreThenSegment':
        return ([model.restorer] if model.restorer.get('window') else []) + windowed(model.segmentor)
    test_cfg = model.get('test_cfg') or {}
    sliding = model.type == 'RASS' and test_cfg.get('mode') in ('slide', 'stitched')
    tiled = model.type.endswith('SCRRestorer') and test_cfg.get('window')
    return [test_cfg] if sliding or tiled else []


def released_path(model: ConfigDict) -> list[str]:
    """Changes a model config in place to the window and tag scheme of the released segmentor, and returns notes."""
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
    """Returns the reason why a `RAMTagger` with this config cannot run, or None if it can."""
    if importlib.util.find_spec('ram') is None:
        return 'the package ram is not installed'
    weights = Path(tagger.get('weights', 'weights/ram_swin_large_14m.pth'))
    return None if weights.is_file() else f"RAM's weights {weights} do not exist"
