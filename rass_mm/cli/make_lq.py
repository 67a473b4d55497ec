"""`rass-mm make-lq` and `tools/make_lq_dataset.py`: makes a fixed degraded copy of an image folder."""

import argparse
import logging
import os
from pathlib import Path

from rass_mm.cli.options import add_max_pixels, add_recipe_version, finish_job, seed, workers
from rass_mm.cli.ray_pool import add_ray, chosen_pool
from rass_mm.cli.shards import add_pack, add_shards, chosen_shard, ending_with_the_others
from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.degradation.jpeg import CHROMA
from rass_mm.degradation.recipe import OSEDIFF, override
from rass_mm.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm make-lq`."""
    parser.add_argument(
        'images',
        type=Path,
        help='folder of clean images, searched recursively, or a pattern in quotes; or a .tar or .parquet file with '
        'images, or a folder of such files or a pattern for them',
    )
    parser.add_argument('out', type=Path, help='output folder for the degraded images and manifest.jsonl')
    parser.add_argument('--seed', type=seed, default=0, help='random seed (default: 0)')
    parser.add_argument('--workers', type=workers, help='number of processes of this machine (default: all cores)')
    parser.add_argument(
        '--ext',
        choices=('png', 'keep'),
        default='png',
        help='file type of the copies: lossless PNG (default), or keep the type of each image',
    )
    add_max_pixels(parser)
    add_recipe_version(parser, 'is for continuing copies whose manifest states no version')
    parser.add_argument(
        '--jpeg-chroma',
        choices=CHROMA,
        default=OSEDIFF.jpeg_chroma,
        help='upsampling of the JPEG chroma: smooth, as in libjpeg (default), or repeat, as in the released pipeline',
    )
    add_shards(parser)
    add_pack(parser)
    add_ray(parser, 'one per CPU core of the cluster')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Makes the copy and prints a summary; returns the exit status (130 after Ctrl-C).

    Raises:
        RassError: an error that the user can fix; finished images are kept.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    suffix = '.png' if arguments.ext == 'png' else None
    recipe = override(OSEDIFF, {'version': arguments.recipe_version, 'jpeg_chroma': arguments.jpeg_chroma})
    places = (arguments.images, arguments.out)
    if arguments.ray and arguments.workers:
        raise ConfigError('--workers are processes of this machine. With --ray, set --ray-actors instead.')
    pool = chosen_pool(arguments)
    processes = arguments.workers or os.cpu_count() or 1
    rest = (arguments.seed, processes, recipe, suffix, arguments.max_pixels, chosen_shard(arguments), pool)
    rest += (arguments.pack,)
    with ending_with_the_others(arguments):
        return finish_job(
            lambda: build_lq_dataset(*places, *rest),
            lambda made: (
                f'{made.images} images in {arguments.out} ({made.made} made now, {made.seconds:.1f} s); '
                f'manifest: {made.manifest}'
            ),
        )
