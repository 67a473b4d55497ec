"""Entry point of `python -m experiments COMMAND`, which runs from the root of the checkout."""

import sys

from experiments.cli import main

if __name__ == '__main__':
    sys.exit(main())
