"""The commands: `rass-mm doctor | train | test | make-scenes | make-base | random-base | make-lq | check-data |
restore | attention | convert | robustness | report | benchmark | configs | demo`.

Imports of heavy libraries stay inside the commands, so that `rass-mm doctor` answers on a broken installation.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rass_mm.errors import RassError
from rass_mm.version import __version__

Command = Callable[[argparse.Namespace], int]


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns the process's exit status. Deliberate errors are printed without a traceback."""
    parser = argparse.ArgumentParser(
        'rass-mm', description='Restoration and segmentation of low-quality images with a diffusion UNet.'
    )
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for add in (
        _add_doctor,
        _add_train,
        _add_test,
        _add_scenes,
        _add_base,
        _add_random_base,
        _add_lq,
        _add_check_data,
        _add_restore,
        _add_attention,
        _add_robustness,
        _add_convert,
        _add_report,
        _add_benchmark,
        _add_configs,
        _add_demo,
    ):
        add(commands)
    return guarded(parser.parse_args(argv))


def train_main(argv: list[str] | None = None) -> int:
    """`tools/train.py`."""
    return guarded(_train_arguments(argparse.ArgumentParser(description='Trains a config.')).parse_args(argv))


def test_main(argv: list[str] | None = None) -> int:
    """`tools/test.py`."""
    return guarded(_test_arguments(argparse.ArgumentParser(description='Tests a checkpoint.')).parse_args(argv))


def guarded(arguments: argparse.Namespace) -> int:
    """Runs `arguments.run`; prints a `RassError` as one message and returns 1."""
    try:
        code = arguments.run(arguments)
        if getattr(arguments, 'launcher', 'none') != 'none':
            _leave_group()
        return code
    except RassError as error:
        # An error that crossed from a data worker carries that worker's traceback in its text.
        message = str(error).split(f'{type(error).__name__}: ')[-1]
        sys.stderr.write(f'\nerror: {message.strip()}\n')
        return 1


def _leave_group() -> None:
    """Ends the process group: its threads, still there when the interpreter ends, can abort a run that went well."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _common_arguments(parser: argparse.ArgumentParser) -> None:
    from mmengine.config import DictAction

    parser.add_argument('config', help='a config file, or the name of a shipped one, e.g. rass/rass_scenes_tiny.py')
    parser.add_argument('--work-dir', help='where logs, checkpoints and results go (default: work_dirs/<config name>)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, help='overrides, key=value, nested keys with dots'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def _train_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _common_arguments(parser)
    parser.add_argument(
        '--resume', nargs='?', const=True, default=False, help='resume from the last or the given checkpoint'
    )
    parser.add_argument('--amp', action='store_true', help='bfloat16 mixed precision where there is an accelerator')
    parser.set_defaults(run=_run_train)
    return parser


def _test_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _common_arguments(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file; none for a model that nothing trained')
    parser.add_argument('--out', help='folder for the predicted label maps')
    parser.add_argument('--show-dir', help='folder for pictures of the predictions')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.set_defaults(run=_run_test)
    _take_late_checkpoint(parser)
    return parser


def _take_late_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Lets options stand between CONFIG and an optional CHECKPOINT, which argparse before Python 3.13 does not take."""
    known = parser.parse_known_args

    def parse(*given: Any) -> tuple[argparse.Namespace, list[str]]:
        arguments, rest = known(*given)
        if rest and arguments.checkpoint is None and not rest[0].startswith('-'):
            arguments.checkpoint = rest.pop(0)
        return arguments, rest

    parser.parse_known_args = parse


def _prepared(arguments: argparse.Namespace, amp: bool = False) -> object:
    import rass_mm  # noqa: F401  (registers everything the configs name)
    from rass_mm import apis
    from rass_mm.config import load_config

    os.environ.setdefault('LOCAL_RANK', str(arguments.local_rank))
    config = load_config(arguments.config, arguments.cfg_options)
    return apis.prepare_config(config, arguments.launcher, amp, arguments.work_dir, Path(arguments.config).stem)


def _run_train(arguments: argparse.Namespace) -> int:
    config = _prepared(arguments, arguments.amp)
    from rass_mm import apis

    apis.train(config, arguments.resume)
    return 0


def _run_test(arguments: argparse.Namespace) -> int:
    config = _prepared(arguments)
    from rass_mm import apis

    apis.test(config, arguments.checkpoint, arguments.out, arguments.show_dir, arguments.tta)
    return 0


def _add_train(commands: argparse._SubParsersAction) -> None:
    _train_arguments(commands.add_parser('train', help='train a config (same as tools/train.py)'))


def _add_test(commands: argparse._SubParsersAction) -> None:
    _test_arguments(commands.add_parser('test', help='test a checkpoint (same as tools/test.py)'))


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('doctor', help='check the installation and say what to mend')
    parser.set_defaults(run=_run_doctor)


def _run_doctor(_arguments: argparse.Namespace) -> int:
    from rass_mm.doctor import examine

    return examine()


def _add_scenes(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('make-scenes', help='write the embedded scene data set')
    parser.add_argument('out', type=Path)
    parser.add_argument('--train', type=int, default=400, help='training scenes')
    parser.add_argument('--val', type=int, default=100, help='validation scenes')
    parser.add_argument('--size', type=int, default=128, help='side in pixels')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=os.cpu_count() or 1)
    parser.set_defaults(run=_run_scenes)


def _run_scenes(arguments: argparse.Namespace) -> int:
    from rass_mm.demo.scenes.generator import write_scenes

    counts = {'train': arguments.train, 'val': arguments.val}
    write_scenes(arguments.out, counts, arguments.seed, (arguments.size, arguments.size), arguments.workers)
    sys.stdout.write(f'{arguments.out}: {arguments.train} training and {arguments.val} validation scenes\n')
    return 0


def _add_base(commands: argparse._SubParsersAction) -> None:
    from mmengine.config import DictAction

    parser = commands.add_parser('make-base', help='train a small base and write it as a diffusers folder')
    parser.add_argument('out', type=Path)
    parser.add_argument('--data', help='a segmentation config whose training images to use (default: drawn scenes)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides of that config')
    parser.add_argument('--start', type=Path, help='a small base to begin with, instead of random weights')
    parser.add_argument(
        '--fresh-unet', action='store_true', help='of --start take the autoencoder only: UNet and text encoder are new'
    )
    for name in RECIPE_OPTIONS:
        parser.add_argument(f'--{name.replace("_", "-")}', type=float if name.endswith(('_rate', '_gamma')) else int)
    parser.set_defaults(run=_run_base)


RECIPE_OPTIONS = (
    *('scenes', 'vae_steps', 'vae_batch', 'vae_crop', 'vae_rate'),
    *('unet_steps', 'unet_batch', 'unet_crop', 'unet_rate', 'snr_gamma', 'seed'),
)


def _run_base(arguments: argparse.Namespace) -> int:
    import rass_mm  # noqa: F401  (prepares the libraries)
    from rass_mm.config import load_config
    from rass_mm.demo.base.images import ConfiguredImages
    from rass_mm.demo.base.training import BaseRecipe, Start, make_base
    from rass_mm.diffusion.base import read_base
    from rass_mm.errors import ConfigError

    if arguments.fresh_unet and not arguments.start:
        raise ConfigError('--fresh-unet says what to leave out of --start FOLDER; give that folder too.')
    start = Start(read_base(arguments.start), arguments.fresh_unet) if arguments.start else None
    given = {name: getattr(arguments, name) for name in RECIPE_OPTIONS if getattr(arguments, name) is not None}
    source = None
    if arguments.data:
        source = ConfiguredImages(load_config(arguments.data, arguments.cfg_options).train_dataloader.dataset)
    losses = make_base(arguments.out, BaseRecipe(**given), source, start)
    sys.stdout.write(f'{arguments.out}: ' + ', '.join(f'{name} {value}' for name, value in losses.items()) + '\n')
    return 0


def _add_random_base(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'random-base', help='write a base folder with RANDOM weights, for tests and measurements'
    )
    parser.add_argument('out', type=Path)
    parser.add_argument('--layout', default='sd21-base', help='sd21-base, sd-turbo, sd15 or scenes-tiny')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--configs-only', action='store_true', help='no weights: enough for the meta device')
    parser.set_defaults(run=_run_random_base)


def _run_random_base(arguments: argparse.Namespace) -> int:
    import rass_mm  # noqa: F401  (prepares the libraries)
    from rass_mm.diffusion.known_bases import write_random_base

    write_random_base(arguments.out, arguments.layout, arguments.seed, weights=not arguments.configs_only)
    sys.stdout.write(f'{arguments.out}: {arguments.layout} with RANDOM weights\n')
    return 0


def _add_lq(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.make_lq import add_arguments

    add_arguments(commands.add_parser('make-lq', help='write a fixed degraded copy of an image folder'))


def _add_check_data(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.check_data import add_arguments

    add_arguments(commands.add_parser('check-data', help='read all images and labels of a config, say what is wrong'))


def _add_restore(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.restore import add_arguments

    add_arguments(commands.add_parser('restore', help='restore image files of any size with a trained adapter'))


def _add_attention(commands: argparse._SubParsersAction) -> None:
    from rass_mm.inference.attention import add_arguments

    add_arguments(commands.add_parser('attention', help='pictures of where a restorer attends to each class name'))


def _add_convert(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.convert import add_arguments

    add_arguments(commands.add_parser('convert', help="convert published weights: OSEDiff's, SCR's or RASS's"))


def _add_robustness(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.robustness import add_arguments

    add_arguments(commands.add_parser('robustness', help='mIoU of a segmentor over the severity of each degradation'))


def _add_report(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.report import add_arguments

    add_arguments(commands.add_parser('report', help='tables of recorded tests and benchmarks, in Markdown'))


def _add_benchmark(commands: argparse._SubParsersAction) -> None:
    from rass_mm.cli.benchmark import add_arguments

    add_arguments(commands.add_parser('benchmark', help='images per second, stage by stage, of configs in turns'))


def _add_configs(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('configs', help='print the folder of the shipped configs and their names')
    parser.set_defaults(run=_run_configs)


def _run_configs(_arguments: argparse.Namespace) -> int:
    from rass_mm.config import config_path

    root = config_path()
    names = sorted(str(file.relative_to(root)) for file in root.rglob('*.py') if '_base_' not in file.parts)
    sys.stdout.write('\n'.join([f'{root}:', *(f'  {name}' for name in names)]) + '\n')
    return 0


def _add_demo(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser('demo', help='scenes, base, training, test, table and pictures in a few minutes')
    parser.add_argument('--out', type=Path, default=Path('demo_out'))
    parser.set_defaults(run=_run_demo)


def _run_demo(arguments: argparse.Namespace) -> int:
    from rass_mm.demo.run import run_demo

    run_demo(arguments.out)
    return 0
