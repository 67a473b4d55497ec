"""Makes a fixed low-quality copy of an image folder, with a manifest from which every image can be reproduced.

python tools/make_lq_dataset.py data/ade/images/validation data/ade_lq/images/validation --seed 0 --workers 8

Add `--ext keep` if the data set expects the original file names, e.g. ADE20K's `.jpg`. To resume a stopped run, run the
same command again.
"""

import sys

from rass_mm_cli.main import run_command

if __name__ == '__main__':
    sys.exit(run_command('make-lq', program='tools/make_lq_dataset.py'))
