"""Rejects checkpoints that are given as a URL.

mmengine's own loaders would download and unpickle such files, which can run arbitrary code.
"""

import re
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
"""Scheme of short names such as `torchvision://resnet50` -> function of mmengine that returns the URL of each name."""


ADDRESS = re.compile(r'[A-Za-z][\w+.-]+:/')
"""Start of a URL. A path object has merged its two slashes."""


def refuse_remote(filename: str, *_: Any, **__: Any) -> NoReturn:
    """Raises a `CheckpointError` that says how to download the file."""
    filename = re.sub(r'^([\w+.-]+:)/(?!/)', r'\1//', filename)
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
            f'client of its storage service and pass the path of the local file instead.'
        )
    part = " and set prefix='backbone.' in its init_cfg" if filename.startswith('mmcls://') else ''
    raise CheckpointError(
        f'The checkpoint {filename} is not a local file, and only local files are read. Download it with\n  {command}\n'
        f'and pass {name} instead{part}.'
    )


def address_of(filename: str) -> str:
    """Returns the URL of a short name such as `torchvision://resnet50`. Other names are returned unchanged."""
    scheme, _, name = filename.partition('://')
    if scheme not in ZOOS:
        return filename
    try:
        return str(ZOOS[scheme]().get(name, filename))
    except (ImportError, OSError):  # torchvision is not installed, or the list cannot be read
        return filename


# mmengine has no public way to list the registered schemes.
for _prefix in [prefix for prefix in CheckpointLoader._schemes if prefix]:
    CheckpointLoader.register_scheme(_prefix, refuse_remote, force=True)
