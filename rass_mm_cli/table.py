"""Table of commands: names, groups and help lines.

Each command has a line here and a file in `rass_mm/cli`, except `doctor`, whose file is in `rass_mm_cli`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command of `rass-mm`.

    Attributes:
        name: name on the command line.
        help: help line, in lower case and without a period.
        group: heading in the overview.
        plugin: whether the command uses the plugin for mmsegmentation, see `rass_mm_cli.start`. `rass_mm_cli.extras`
            lists the commands that do not run without it.
    """

    name: str
    help: str
    group: str
    plugin: bool = True

    @property
    def module(self) -> str:
        """Name of the command's module. Its function `add_arguments(parser)` also sets the parser default `run`."""
        package = 'rass_mm_cli' if self.name == 'doctor' else 'rass_mm.cli'
        return f'{package}.{self.name.replace("-", "_")}'


TRAINING, IMAGES, DATA = 'Train and test', 'Segment and restore images', 'Data'
WEIGHTS, MEASURING, INSTALLATION = 'Weights', 'Measure', 'Installation'
COMMANDS = {
    command.name: command
    for command in (
        Command('train', 'train a config (same as tools/train.py)', TRAINING),
        Command('test', 'test a checkpoint (same as tools/test.py)', TRAINING),
        Command('segment', 'segment image files of any size with a trained checkpoint', IMAGES),
        Command('restore', 'restore image files of any size with a trained adapter', IMAGES, plugin=False),
        Command('attention', 'draw where a restorer attends to each class name', IMAGES, plugin=False),
        Command('jobs', 'show, merge or retry the shards of an output folder', IMAGES, plugin=False),
        Command('app', 'serve a web page that degrades, restores and segments images', IMAGES),
        Command('check-data', 'read all images and labels of a config and report errors', DATA),
        Command('make-lq', 'write a fixed degraded copy of an image folder', DATA, plugin=False),
        Command('make-scenes', 'draw the built-in data set of labelled scenes', DATA),
        Command('make-base', 'train a small base and write it as a diffusers folder', WEIGHTS),
        Command(
            'random-base', 'write a base folder with RANDOM weights, for tests and measurements', WEIGHTS, plugin=False
        ),
        Command('fetch', 'fetch published bases and weights by name, or list them', WEIGHTS, plugin=False),
        Command('convert', "convert published weights: OSEDiff's, SCR's or RASS's", WEIGHTS),
        Command('pack', 'pack a model, its config and a model card into one folder to hand over', WEIGHTS),
        Command('inspect', 'show what a checkpoint, adapter, base, pack, export or record is', WEIGHTS, plugin=False),
        Command('export', 'export a segmentor or restorer to OpenVINO, ONNX or torch.export', WEIGHTS),
        Command('robustness', 'measure the mIoU of a segmentor at each severity of each degradation', MEASURING),
        Command('benchmark', 'measure the speed of configs by stage', MEASURING),
        Command('report', 'write tables of recorded tests and benchmarks, or curves of trainings', MEASURING),
        Command('demo', 'train and test the method on drawn scenes, and write a table and pictures', INSTALLATION),
        Command('configs', 'list the shipped configs', INSTALLATION, plugin=False),
        Command('doctor', 'check the installation and print the command that fixes each fault', INSTALLATION),
    )
}


def overview() -> str:
    """Returns the help page, which lists the commands by group."""
    width = max(map(len, COMMANDS)) + 2
    lines = [
        'usage: rass-mm COMMAND [OPTIONS]',
        '',
        'Restoration and segmentation of low-quality images with a diffusion UNet.',
    ]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        members = [command for command in COMMANDS.values() if command.group == group]
        lines += ['', f'{group}:', *(f'  {command.name:<{width}}{command.help}' for command in members)]
    return '\n'.join([*lines, '', 'Run rass-mm COMMAND --help for the options of a command.', ''])
