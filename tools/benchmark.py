"""Measures speed by stage: python tools/benchmark.py CONFIG [CHECKPOINT] [--variant released] [--out DIR] ..."""

import sys

from rass_mm_cli.main import run_command

if __name__ == '__main__':
    sys.exit(run_command('benchmark', program='tools/benchmark.py'))
