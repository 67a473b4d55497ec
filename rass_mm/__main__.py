"""Entry point of `python -m rass_mm`, which is equivalent to the command `rass-mm`."""

import sys

from rass_mm_cli.main import main

sys.exit(main())
