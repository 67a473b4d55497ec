"""Every config that mmseg ships is accepted: the checks of values refuse only what cannot work."""

from pathlib import Path

import mmseg
import pytest
from mmengine.config import Config

from rass_mm.config.settings import check_settings
from rass_mm.errors import ConfigError

FOLDER = Path(mmseg.__file__).parent / '.mim' / 'configs'
WRONG = {'unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py': 'whole'}
"""A config that cannot work as it is: it has sizes of windows, but tests whole images."""


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER.is_dir(), reason='mmseg was installed without its configs')
def test_configs_of_mmseg_are_accepted():
    refused, checked = {}, 0
    for file in sorted(FOLDER.rglob('*.py')):
        if '_base_' in file.parts:
            continue
        try:
            config = Config.fromfile(file)
        except Exception:  # some need packages that are not installed
            continue
        checked += 1
        for purpose in ('train', 'test'):
            try:
                check_settings(config, purpose)
            except ConfigError as error:
                refused[file.name] = str(error)
    assert checked > 500 and refused.keys() <= WRONG.keys(), refused
