"""Tests a model.

python tools/test.py CONFIG CHECKPOINT [--out DIR] [--show-dir DIR] [--tta] [--cfg-options k=v ...]
"""

import sys

from rass_mm_cli.main import run_command

if __name__ == '__main__':
    sys.exit(run_command('test', program='tools/test.py'))
