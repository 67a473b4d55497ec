"""Work dir of a run: its last checkpoint, and the copy of the config that the runner writes there."""

import logging
from pathlib import Path

from mmengine.config import Config

from rass_mm.errors import CheckpointError, ConfigError, clipped
from rass_mm.files.regular import check_regular

logger = logging.getLogger(__name__)

LAST = 'last_checkpoint'
"""File of mmengine that contains the path of the last checkpoint of a run."""

RECEIVED = 'resumed'
"""Folder in a work dir for checkpoints that came from the first process of a training."""


def check_last_checkpoint(work_dir: str, first: bool = True) -> None:
    """Checks that the file `last_checkpoint` in a work dir, if there is one, contains the path of a file.

    Without the file, a run starts from the beginning. If there are checkpoints, a warning names the last one.

    Args:
        work_dir: the work dir.
        first: whether this is the first process of the training. The others resume from its checkpoint.

    Raises:
        CheckpointError: it does not, or there is none but a checkpoint from the first process of an earlier training.
    """
    record = Path(work_dir) / LAST
    if not record.exists():
        if first:
            _check_unnamed(Path(work_dir))
        return
    fix = 'Delete it, or pass the checkpoint to resume from: --resume FILE.'
    check_regular(record, fix, CheckpointError)
    try:
        named = record.read_text(encoding='utf-8').strip()
        found = bool(named) and Path(named).is_file()
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{record} cannot be read ({error}). {fix}') from None
    if not found:
        here = record.parent / Path(named).name
        if named and here.is_file():  # the work dir was moved or copied
            fix = f'To resume from the file of this name here, pass it: --resume {here}'
        raise CheckpointError(f'{record} contains {clipped(named)!r}, which is not the path of a checkpoint. {fix}')


def _check_unnamed(work_dir: Path) -> None:
    """Handles checkpoints in a work dir without the file `last_checkpoint`."""

    def newest(folder: Path) -> Path | None:
        numbers = {file: file.stem.rpartition('_')[2] for file in folder.glob('iter_*.pth')}
        found = [file for file, number in numbers.items() if number.isdecimal()]
        return max(found, key=lambda file: int(numbers[file]), default=None)

    own, received = newest(work_dir), newest(work_dir / RECEIVED)
    if own is not None:
        logger.warning(
            '%s has no file %s, so training starts from the beginning. To resume, pass the checkpoint: --resume %s',
            *(work_dir, LAST, own),
        )
    elif received is not None:
        raise CheckpointError(
            f'{work_dir} has no file {LAST}, but {received}, which came from the first process of an earlier training. '
            f'To resume from it, pass --resume {received}. To start a new run, omit --resume.'
        )


def check_config_copy(config: Config) -> None:
    """Raises a ConfigError if the copy of the config in the work dir would replace the config file itself.

    A file that an earlier run wrote there may be replaced.
    """
    file = Path(config.filename or '')
    if not file.is_file() or file.resolve() != (Path(config.work_dir) / file.name).resolve():
        return
    if file.read_text(encoding='utf-8') != Config.fromfile(file).pretty_text:
        raise ConfigError(
            f'Training writes the complete config to {config.work_dir}/{file.name}, which is your config file. Choose '
            'another --work-dir.'
        )


def renamed_for_test(config: Config) -> Config:
    """Returns the config with `_test` appended to its file name.

    The runner of a test writes its config to the work dir under that name. Otherwise, it would overwrite the config
    that the training wrote there.
    """
    if config.filename is None:
        return config
    file = Path(config.filename)
    name = str(file.with_name(f'{file.stem}_test{file.suffix}'))
    return Config(config.to_dict(), cfg_text=config.text or config.pretty_text, filename=name)
