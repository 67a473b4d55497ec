"""Makes a fixed low-quality copy of an image folder, with a manifest that replays every image.

python tools/make_lq_dataset.py data/ade/images/validation data/ade_lq/images/validation --seed 0 --workers 8

Add `--ext keep` where a data set expects the images' own file names, e.g. ADE20K's `.jpg`. A run that was stopped goes
on where it was when the same command is given again.
"""

import sys

from rass_mm.cli.make_lq import main

if __name__ == '__main__':
    sys.exit(main())
