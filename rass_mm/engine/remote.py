"""Checkpoints given as an address are refused.

mmengine's own loaders download and unpickle them, which can run any code.
"""

import shlex
from typing import Any, NoReturn
from urllib.parse import urlsplit

from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from rass_mm.errors import CheckpointError

ZOOS = {
    'torchvision': mmengine_checkpoint.get_torchvision_models,
    'modelzoo': mmengine_checkpoint.get_torchvision_models,
    'open-mmlab': mmengine_checkpoint.get_external_models,
    'openmmlab': mmengine_checkpoint.get_external_models,
    'mmcls': mmengine_checkpoint.get_mmcls_models,
}
"""Schemes of short names, and mmengine's lists of the addresses that they stand for."""


def refuse_remote(filename: str, *_: Any, **__: Any) -> NoReturn:
    """Raises a CheckpointError that has the command to download the file."""
    address = address_of(filename)
    scheme, _, rest = address.rpartition('://')
    name = urlsplit(address).path.rpartition('/')[2] or 'checkpoint.pth'
    if scheme in ('http', 'https'):
        command = f'curl -L -o {shlex.quote(name)} {shlex.quote(address)}'
    elif scheme.endswith('s3'):
        command = f'aws s3 cp {shlex.quote(f"s3://{rest}")} {shlex.quote(name)}'
    else:
        raise CheckpointError(
            f'The checkpoint {filename} is not a local file, and only local files are read. Download it with the '
            f'client of its storage and give the file in its place.'
        )
    part = " and set prefix='backbone.' in its init_cfg" if filename.startswith('mmcls://') else ''
    raise CheckpointError(
        f'The checkpoint {filename} is not a local file, and only local files are read. Download it by\n  {command}\n'
        f'and give {name} in its place{part}.'
    )


def address_of(filename: str) -> str:
    """The address that a short name like `torchvision://resnet50` stands for; other names as they are."""
    scheme, _, name = filename.partition('://')
    if scheme not in ZOOS:
        return filename
    try:
        return str(ZOOS[scheme]().get(name, filename))
    except (ImportError, OSError):  # torchvision is not installed, or the list is not readable
        return filename


# Any scheme that is registered, with its pattern. There is no other way to list them.
for _prefix in [prefix for prefix in CheckpointLoader._schemes if prefix]:
    CheckpointLoader.register_scheme(_prefix, refuse_remote, force=True)
