"""Search of a config for models that describe their preparation, before they are built."""

from contextlib import suppress
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from rass_mm.config.building import explained
from rass_mm.config.parts import dicts
from rass_mm.errors import ConfigError
from rass_mm.segmentation.restore_then_segment import RestoreThenSegment


def prepares_parts(config: Config) -> bool:
    """Returns whether a part of the model of a config has a method `prepare_prediction`.

    If no part has one, as in a plain mmseg segmentor, `rass_mm.engine.ready.prepare` packs no weights and keeps their
    layout. A `RestoreThenSegment` only prepares its parts, so it does not count itself.

    Args:
        config: the config of a training or a test.
    """
    with MODELS.switch_scope_and_registry(config.get('default_scope') or 'mmseg') as registry:
        kinds = [_class_of(part.get('type'), config, registry) for _, part in dicts(config.model.to_dict(), 'model')]
    return any(hasattr(kind, 'prepare_prediction') for kind in kinds if kind is not RestoreThenSegment)


def _class_of(kind: Any, config: Config, registry: Any) -> Any:
    if not isinstance(kind, str):
        return kind
    with suppress(ConfigError), explained(config, 'model'):  # an unknown type is reported when the model is built
        return registry.get(kind)
    return None
