"""`python -m rass_mm_cli` is the command `rass-mm`."""

import sys

from rass_mm_cli.main import main

sys.exit(main())
