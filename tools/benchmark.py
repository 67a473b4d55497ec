"""Times configs stage by stage: python tools/benchmark.py CONFIG [CHECKPOINT] [--variant released] [--out DIR] ..."""

import sys

from rass_mm.cli.benchmark import main

if __name__ == '__main__':
    sys.exit(main())
