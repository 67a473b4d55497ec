"""Tests: python tools/test.py CONFIG CHECKPOINT [--out DIR] [--show-dir DIR] [--tta] [--cfg-options k=v ...]."""

import sys

from rass_mm.cli.main import test_main

if __name__ == '__main__':
    sys.exit(test_main())
