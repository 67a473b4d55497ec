"""Loading of configs: shipped configs, the user's own configs, and the config text in a checkpoint.

A `.py` config is code by design: reading it runs it, and it may refer to any module. JSON, YAML and the config text in
a checkpoint are data. mmengine's registries import and call any dotted name in a `type`, and `custom_imports` imports
any module. Data is therefore checked before anything is built from it; `check_config_data` lists the rules. The values
of `--cfg-options` come from the user's own command line and are not checked. Once a config that is data has been read,
mmengine's registries no longer import anything by name in this process, not even for a `.py` config that is read later.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rass_mm.config.shipped import PACKAGE, config_names, config_path

if TYPE_CHECKING:
    from rass_mm.config.data import read_config_data
    from rass_mm.config.loading import load_config
    from rass_mm.config.rules import check_config_data
    from rass_mm.config.text import config_from_checkpoint, config_from_text

__all__ = [
    'PACKAGE',
    'check_config_data',
    'config_from_checkpoint',
    'config_from_text',
    'config_names',
    'config_path',
    'load_config',
    'read_config_data',
]
LAZY = {
    'check_config_data': 'rules',
    'config_from_checkpoint': 'text',
    'config_from_text': 'text',
    'load_config': 'loading',
    'read_config_data': 'data',
}
"""Names that are imported on first use, and their modules, because they need mmengine."""


def __getattr__(name: str) -> Any:
    if name in LAZY:
        return getattr(import_module(f'{__name__}.{LAZY[name]}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
