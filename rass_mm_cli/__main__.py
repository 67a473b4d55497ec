"""Entry point of `python -m rass_mm_cli`, which is the same as `rass-mm`."""

import sys

from rass_mm_cli.main import main

sys.exit(main())
