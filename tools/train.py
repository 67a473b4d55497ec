"""Trains a model: python tools/train.py CONFIG [--work-dir DIR] [--resume] [--amp] [--cfg-options k=v ...]."""

import sys

from rass_mm_cli.main import run_command

if __name__ == '__main__':
    sys.exit(run_command('train', program='tools/train.py'))
