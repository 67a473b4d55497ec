"""Makes a fixed low-quality copy of an image folder, with a manifest that replays every image.

python tools/make_lq_dataset.py data/ade/images/validation data/ade_lq/images/validation --seed 0 --workers 8

Add `--ext keep` where a data set expects the images' own file names, e.g. ADE20K's `.jpg`. A run that was stopped
resumes when the same command is given again.
"""

import sys

from rass_mm_cli.main import run_command

if __name__ == '__main__':
    sys.exit(run_command('make-lq', program='tools/make_lq_dataset.py'))
