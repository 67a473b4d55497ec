"""Times the neck and the decode head of RASS configs on random features, with random weights and one CPU thread.

python tools/time_heads.py rass/rass_ade20k_lq.py rass/rass_ade20k_lq_segformer.py --size 512x512 --passes 5
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rass_mm.analysis.report.tables import markdown_table
from rass_mm.cli.options import count, seed, size
from rass_mm.config import load_config
from rass_mm.diffusion.known_bases import LAYOUTS, write_random_base
from rass_mm.labelling.bands import in_bands
from rass_mm.segmentation.rows import head_rows


def main() -> int:
    """Prints a table with a row per config; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='file or name of a shipped config')
    parser.add_argument('--layout', choices=tuple(LAYOUTS), default='sd21-base', help='architecture of the base')
    parser.add_argument('--size', type=size, default=(512, 512), metavar='HxW', help='image size (default: 512x512)')
    parser.add_argument('--passes', type=count, default=5, help='timed passes of each config, in turns (default: 5)')
    parser.add_argument('--seed', type=seed, default=0, help='seed of weights and features (default: 0)')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    with torch.no_grad():
        jobs = [Decoding(config, arguments.layout, arguments.size) for config in arguments.configs]
        operations = [job.operations() for job in jobs]  # also the warm-up
        seconds = [[timed(job.run) for job in jobs] for _ in range(arguments.passes)]
    rows = [
        (job.name, f'{job.parameters / 1e6:.2f}', f'{done / 1e12:.4f}', f'{median(taken):.3f}')
        for job, done, taken in zip(jobs, operations, zip(*seconds, strict=True), strict=True)
    ]
    print(markdown_table(['neck and head of', 'parameters (M)', 'TFLOP', 'CPU seconds'], rows), end='')
    return 0


class Decoding:
    """Neck and decode head of a config, with random features of one image.

    Args:
        name: name of the config.
        layout: a key of `LAYOUTS`, the architecture of the base.
        image: (H, W) of the image.
    """

    def __init__(self, name: str, layout: str, image: tuple[int, int]) -> None:
        self.name, config = name, load_config(name)
        init_default_scope('mmseg')
        with tempfile.TemporaryDirectory() as base:
            write_random_base(Path(base), layout, weights=False)
            with torch.device('meta'):
                backbone = MODELS.build({**config.model.backbone, 'base': base})
        inputs = {'in_channels': backbone.channels, 'in_strides': backbone.strides}
        parts = nn.ModuleList([MODELS.build({**config.model.neck, **inputs}), MODELS.build(config.model.decode_head)])
        self.neck, self.head = parts.eval()
        self.parameters = sum(parameter.numel() for parameter in parts.parameters())
        self.image, self.test_cfg = image, config.model.test_cfg
        self.features = [
            torch.randn(1, channels, *(side // stride for side in image))
            for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
        ]

    def run(self) -> None:
        """Computes the label map of the image from its features."""
        metas = [{'img_shape': self.image, 'pad_shape': self.image}]
        rows = head_rows(self.head, self.neck(self.features), metas, self.image, self.test_cfg)
        torch.cat([band.argmax(1) for band in in_bands(rows, self.image[0])], 1)

    def operations(self) -> int:
        """Counts the operations of a run; a multiply-add is 2, elementwise operations are not counted."""
        with FlopCounterMode(display=False) as counter:
            self.run()
        return counter.get_total_flops()


def timed(run: Callable[[], None]) -> float:
    """Runs a function and returns the CPU seconds that it took."""
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == '__main__':
    sys.exit(main())
