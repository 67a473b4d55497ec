"""Options and config of the commands that drive mmengine's runner: `train` and `test`."""

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from rass_mm import apis
from rass_mm.cli.options import add_config, add_overrides, integer
from rass_mm.config import load_config
from rass_mm.config.settings import check_settings


def add_runner(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments shared by training and testing: CONFIG, --work-dir, --cfg-options and launcher options."""
    add_config(parser)
    parser.add_argument(
        '--work-dir', help='folder for logs, checkpoints and results (default: work_dirs/<config name>)'
    )
    add_overrides(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=integer(0, 2**16), default=0, help='set by the launcher')


def runner_config(arguments: argparse.Namespace, amp: bool = False, purpose: str = 'train') -> Config:
    """Loads the config of a command that has the options of `add_runner`, and prepares it with `prepare_config`.

    Args:
        arguments: the parsed command line.
        amp: whether to train in mixed precision.
        purpose: 'train' or 'test', see `check_settings`.
    """
    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    config = load_config(arguments.config, arguments.cfg_options)
    check_settings(config, purpose)
    return apis.prepare_config(config, arguments.launcher, amp, arguments.work_dir, Path(arguments.config).stem)
