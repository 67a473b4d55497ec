"""Work dir of a run: its last checkpoint, and the copy of the config that the runner writes there."""

from pathlib import Path

from mmengine.config import Config

from rass_mm.errors import CheckpointError, ConfigError, clipped
from rass_mm.files.regular import check_regular

LAST = 'last_checkpoint'
"""File of mmengine that contains the path of the last checkpoint of a run."""


def check_last_checkpoint(work_dir: str) -> None:
    """Checks that the file `last_checkpoint` in a work dir, if there is one, contains the path of a file.

    Raises:
        CheckpointError: it does not.
    """
    record = Path(work_dir) / LAST
    if not record.exists():
        return
    fix = 'Delete it, or pass the checkpoint to resume from: --resume FILE.'
    check_regular(record, fix, CheckpointError)
    try:
        named = record.read_text(encoding='utf-8').strip()
        found = bool(named) and Path(named).is_file()
    except (OSError, ValueError) as error:
        raise CheckpointError(f'{record} cannot be read ({error}). {fix}') from None
    if not found:
        raise CheckpointError(f'{record} contains {clipped(named)!r}, which is not the path of a checkpoint. {fix}')


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
