"""Resuming of a training in several processes, which may have work folders of their own, from one checkpoint."""

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, broadcast, get_rank, get_world_size
from mmengine.runner import find_latest_checkpoint

from rass_mm.engine.work_dirs import RECEIVED
from rass_mm.errors import CheckpointError
from rass_mm.files.atomic import atomic_path
from rass_mm.files.hashing import file_sha256

CHUNK = 2**26
"""Number of bytes that are sent at once."""


def resume_together(runner: Any) -> None:
    """Makes all processes resume from the checkpoint of the first process.

    Only the first process writes checkpoints, so on other machines the work folder may have none, and mmengine would
    start there from the beginning. A process without the same file gets its content and writes it to `resumed/` in its
    work folder. It has no effect unless the runner resumes in several processes.

    Args:
        runner: the runner, before its training starts.

    Raises:
        CheckpointError: only other processes than the first have a checkpoint.
    """
    if not runner._resume or get_world_size() == 1:
        return
    own = Path(runner._load_from or find_latest_checkpoint(runner.work_dir) or '')
    files = all_gather_object((str(own), file_sha256(own)) if own.is_file() else None)
    if files[0] is None:
        _refuse_others(files, runner._load_from or f'checkpoint in {runner.work_dir}')
        return  # without a file, the runner starts a new run, or reports that the file of --resume is missing
    same = [file is not None and file[1] == files[0][1] for file in files]
    if not all(same):
        source, writes = own, int(os.environ.get('LOCAL_RANK', 0)) == 0
        if not same[get_rank()]:
            own = Path(runner.work_dir) / RECEIVED / Path(files[0][0]).name
        _send(source, own if own != source and writes else None)
        barrier()  # the processes of a machine share the file
    runner._load_from = str(own)


def _refuse_others(files: list[tuple[str, str] | None], missing: str) -> None:
    others = [(rank, file[0]) for rank, file in enumerate(files) if file is not None]
    if others:
        rank, name = others[0]
        raise CheckpointError(
            f'The first process of this training has no {missing}, but process {rank} has {name}. All processes resume '
            'from the checkpoint of the first one. Give the machine that has it NODE_RANK=0, or copy it to the first '
            'machine, and pass it there: --resume FILE.'
        )


def _send(source: Path, target: Path | None) -> None:
    """Sends a file of the first process to all processes, in parts.

    Args:
        source: the file. Only that of the first process is read.
        target: the file to write, or None.
    """
    first = get_rank() == 0
    size = torch.tensor([source.stat().st_size if first else 0])
    broadcast(size)
    with ExitStack() as stack:
        reader = stack.enter_context(source.open('rb')) if first else None
        writer = stack.enter_context(stack.enter_context(atomic_path(target)).open('wb')) if target else None
        for start in range(0, int(size), CHUNK):
            content = bytearray(min(CHUNK, int(size) - start))
            if reader is not None:
                reader.readinto(content)
            part = torch.frombuffer(content, dtype=torch.uint8)
            broadcast(part)
            if writer is not None:
                writer.write(part.numpy().data)
