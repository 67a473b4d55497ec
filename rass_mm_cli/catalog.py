"""Catalog of the published files that `rass-mm fetch` stores: sources, files, hashes, licences and folders.

The module uses only the standard library and does not download anything. Hashes come from lists that others have
published, unless an entry says otherwise: the files themselves were not available for comparison. A file without a hash
is trusted on first use, see `rass_mm.fetching`.
"""

from dataclasses import dataclass
from pathlib import Path

from rass_mm_cli.base_files import BASE_FILES
from rass_mm_cli.bases import FILES as BASE_NAMES
from rass_mm_cli.bases import BaseSource, cache_folder, shelf_folder, source_of

MIB = 2**20


@dataclass(frozen=True)
class RemoteFile:
    """One file of an entry.

    Attributes:
        name: path relative to the folder of the entry, with `/`. It is also the path below a mirror address.
        size: size in bytes, or None if it is not known.
        sha256: SHA-256 of each accepted version of the file. Empty if none is known.
        git: identifier of the file in a Git repository (SHA-1 of a header and the content), or None.
        most: maximum number of bytes of a file whose size is not known.
    """

    name: str
    size: int | None = None
    sha256: tuple[str, ...] = ()
    git: str | None = None
    most: int = 16 * MIB

    @property
    def limit(self) -> int:
        """Maximum number of bytes that are downloaded."""
        return self.most if self.size is None else self.size

    @property
    def known(self) -> bool:
        """Whether the content can be checked against the catalog."""
        return bool(self.sha256 or self.git)


@dataclass(frozen=True)
class Licence:
    """Licence of an entry.

    Attributes:
        name: name of the licence.
        forbids: one sentence about what it forbids, or None for a permissive licence.
        address: address of its text, or None.
    """

    name: str
    forbids: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class Entry:
    """Published weights or data that can be fetched by name.

    Attributes:
        name: name on the command line.
        title: name in messages.
        licence: the licence.
        files: all files.
        place: folder relative to the cache folder.
        use: how the stored files are used; `{folder}` is replaced by their folder.
        evidence: origin of the hashes, and what is not verified.
        repository: name of the repository on the hub, or None.
        revision: commit on the hub.
        address: address of the folder of the files on another server, or None.
        hosts: hosts to which this server may redirect.
        page: page for a download by hand, or None.
    """

    name: str
    title: str
    licence: Licence
    files: tuple[RemoteFile, ...]
    place: str
    use: str
    evidence: str
    repository: str | None = None
    revision: str | None = None
    address: str | None = None
    hosts: tuple[str, ...] = ()
    page: str | None = None

    @property
    def folder(self) -> Path:
        """Folder in which the files are stored if no other is given."""
        shelf = shelf_folder()
        if shelf is not None and self.place.startswith('bases/'):
            return shelf / Path(self.place).name
        return cache_folder() / self.place

    @property
    def size(self) -> int | None:
        """Size of all files in bytes, or None if it is not known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(sizes)

    @property
    def unknown(self) -> list[str]:
        """Names of the files that the catalog has no hash of."""
        return [file.name for file in self.files if not file.known]

    @property
    def stored(self) -> bool:
        """Whether all files are in the folder."""
        return all((self.folder / file.name).is_file() for file in self.files)


def _base(source: BaseSource, licence: Licence, evidence: str) -> Entry:
    known = BASE_FILES[source.name]
    names = [name for part in BASE_NAMES for name in part]
    return Entry(
        name=source.name,
        title=source.title,
        licence=licence,
        files=tuple(_base_file(name, *known.get(name, (None, None))) for name in names),
        place=f'bases/{source.folder.name}',
        use=f'--base {source.name}',
        evidence=evidence,
        repository=source.repository,
        revision=source.revision,
    )


def _base_file(name: str, size: int | None, digest: str | None) -> RemoteFile:
    sha256 = (digest,) if digest and len(digest) == 64 else ()
    git = digest if digest and not sha256 else None
    return RemoteFile(name, size, sha256, git, 8 * 2**30 if name.endswith('.safetensors') else 16 * MIB)


LISTED = 'Hashes: public lists of this revision that agree with each other, not compared with the files here.'
RAIL = (
    'Attachment A forbids harmful uses; the same restrictions must be passed on with the weights and all derivatives.'
)
SILENT = 'The project states no licence, so that only what the law allows without one is permitted. Ask the authors.'
BY_HAND = 'No hash, size or direct address could be verified, so the file is downloaded by hand.'
BASES = (
    _base(
        source_of('sd21-base'),
        Licence(
            'CreativeML Open RAIL++-M',
            RAIL,
            'https://huggingface.co/stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL',
        ),
        LISTED,
    ),
    _base(
        source_of('sd-turbo'),
        Licence(
            'Stability AI Community License',
            'Commercial use is limited to registered users with a small annual revenue; others need a contract with '
            'Stability AI.',
            'https://huggingface.co/stabilityai/sd-turbo/blob/main/LICENSE.md',
        ),
        'Hashes of configs and tokenizer: one public list of this revision. No list of the weights was found.',
    ),
    _base(
        source_of('sd15'),
        Licence('CreativeML OpenRAIL-M', RAIL, 'https://huggingface.co/spaces/CompVis/stable-diffusion-license'),
        LISTED,
    ),
)
OTHERS = (
    Entry(
        name='taesd',
        title='TAESD, a tiny autoencoder for Stable Diffusion 1 and 2',
        licence=Licence('MIT', None, 'https://github.com/madebyollin/taesd/blob/main/LICENSE'),
        files=(
            RemoteFile(
                'taesd_encoder.safetensors',
                4895600,
                (
                    '160d90c61c3a5ce50fe2cbe6404b3429f5763772d61b38523cc37e1525b4e19f',
                    'a6b8c0fda4aad50784e543389e0239c72c5e31e9775c9e612ea8333bf3a77dcb',  # in bfloat16
                ),
            ),
            RemoteFile(
                'taesd_decoder.safetensors',
                4895612,
                (
                    'f0fb51dd10d41c26612c070fa0b52ea0215a5ff90792134b4971109dd713c019',
                    'd903e7cc3ae58f21d985a3498a841fa8b230edccff7ac5d27607b0c557945c6f',  # in bfloat16
                ),
            ),
        ),
        place='weights/taesd',
        use='--autoencoder taesd',
        evidence='Hashes: public lists that agree with each other; those of the bfloat16 files agree with files here.',
        repository='madebyollin/taesd',
        revision='614f76814bbe30edbe2e627ace1c2234c81a2c0e',
    ),
    Entry(
        name='osediff',
        title='OSEDiff, restorer (pickle)',
        licence=Licence(
            'Apache-2.0, as its README states',
            'The weights adapt Stable Diffusion 2.1-base, whose use restrictions remain; their training images include '
            'FFHQ, which is for non-commercial use.',
            'https://github.com/cswry/OSEDiff/blob/main/LICENSE',
        ),
        files=(RemoteFile('osediff.pkl', most=2 * 2**30),),
        place='weights/osediff',
        use='rass-mm convert osediff osediff.safetensors --base sd21-base',
        evidence='The path is that of its README; address, revision, size and hash could not be verified.',
        address='https://raw.githubusercontent.com/cswry/OSEDiff/main/preset/models',
        hosts=('media.githubusercontent.com', 'github.com'),
        page='https://github.com/cswry/OSEDiff',
    ),
    Entry(
        name='rass',
        title='RASS, segmentor (detectron2 checkpoint)',
        licence=Licence('not stated', SILENT, 'https://github.com/Ka1Guan/RASS'),
        files=(RemoteFile('rass.pth', most=16 * 2**30),),
        place='weights/rass',
        use='rass-mm convert rass weights/rass --base sd21-base',
        evidence=BY_HAND,
        page='https://drive.google.com/file/d/14Ut18YU2OJ-J1OQHOQK6NTs-4PQYvrJp/view',
    ),
    Entry(
        name='scr',
        title='SCR, restorer (pickle)',
        licence=Licence('not stated', SILENT, 'https://github.com/Ka1Guan/RASS'),
        files=(RemoteFile('scr.pkl', most=8 * 2**30),),
        place='weights/scr',
        use='rass-mm convert scr scr.safetensors --base sd21-base',
        evidence='No public address of this file was found.',
        page='https://github.com/Ka1Guan/RASS',
    ),
    Entry(
        name='reallq',
        title='RealLQ, labelled low-quality photos (archive)',
        licence=Licence('not stated', SILENT, 'https://github.com/Ka1Guan/RASS'),
        files=(RemoteFile('RealLQ.zip', most=8 * 2**30),),
        place='data/RealLQ',
        use='unpack {folder}/RealLQ.zip to data/RealLQ, so that data/RealLQ/ADEChallengeData2016 exists',
        evidence=BY_HAND + ' The archive is stored as it is and not unpacked; its type is not verified.',
        page='https://drive.google.com/file/d/1ZjA0Vr5kPgSaHrnUHQNcTX5FRQNuybFD/view',
    ),
)
ENTRIES = {entry.name: entry for entry in (*BASES, *OTHERS)}


def located(name: str) -> Path:
    """Returns the path of weights that are given on a command line: a path, or the name of a fetched entry.

    A file or folder of that name precedes the entry. The path of an entry with one file is that of the file.
    """
    path, entry = Path(name), ENTRIES.get(name)
    if entry is None or path.exists() or not entry.stored:
        return path
    return entry.folder / entry.files[0].name if len(entry.files) == 1 else entry.folder
