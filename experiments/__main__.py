"""`python -m experiments prepare | run | judge-base | report | pages`; run it from the checkout's root."""

import sys

from experiments.cli import main

if __name__ == '__main__':
    sys.exit(main())
