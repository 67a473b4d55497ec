"""Trains: python tools/train.py CONFIG [--work-dir DIR] [--resume] [--amp] [--cfg-options k=v ...]."""

import sys

from rass_mm.cli.main import train_main

if __name__ == '__main__':
    sys.exit(train_main())
