"""`python -m rass_mm` is the command `rass-mm`."""

import sys

from rass_mm_cli.main import main

sys.exit(main())
