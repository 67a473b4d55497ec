"""`python -m experiments COMMAND`, from the checkout's root; `--help` lists the commands."""

import sys

from experiments.cli import main

if __name__ == '__main__':
    sys.exit(main())
