"""`python -m rass_mm` is the command `rass-mm`."""

import sys

from rass_mm.cli.main import main

sys.exit(main())
