"""Writes the small base that comes with the package from a trained one.

The training's commands are `rass_mm.demo.base.shipped.COMMANDS`; run them with OMP_NUM_THREADS=1.
"""

import argparse
from pathlib import Path

from rass_mm.demo.base.shipped import ship_base, shipped_base, shipped_record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('base', type=Path, help='folder that the last training command wrote')
    parser.add_argument('--seconds', type=int, required=True, help='CPU seconds that the training took')
    arguments = parser.parse_args()
    ship_base(arguments.base, shipped_base(), arguments.seconds)
    size = sum(file.stat().st_size for file in shipped_base().rglob('*') if file.is_file())
    print(f'{shipped_base()}: weights {shipped_record()["weights"]}, {size / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
