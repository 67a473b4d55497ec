"""`rass-mm fetch`: brings published bases and weights into the folder where commands look for them."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.progress import DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from rass_mm.errors import DownloadError, InstallationError
from rass_mm.fetching.copies import CopySource
from rass_mm.fetching.fetch import Plan, Source, fetch
from rass_mm.fetching.hosts import proxy_of
from rass_mm.fetching.records import RECORD
from rass_mm.fetching.web import WebSource
from rass_mm_cli.catalog import ENTRIES, Entry

KEPT = 'Files that are complete, and the beginning of the last one, are kept. Run the same command again to resume.'


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm fetch`."""
    parser.add_argument(
        'name', metavar='NAME', nargs='?', choices=ENTRIES, help=f'{", ".join(ENTRIES)} (default: list them)'
    )
    parser.add_argument('--to', metavar='FOLDER', type=Path, help='target folder (default: where --base NAME looks)')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--mirror', metavar='ADDRESS', help='http(s) address of a folder with the same files')
    source.add_argument(
        '--from', dest='source', metavar='PATH', type=Path, help='folder with the same files, copied by hand'
    )
    parser.add_argument('--accept-licence', action='store_true', help='accept the licence without being asked')
    parser.add_argument(
        '--trust', action='store_true', help='trust files without a known hash on first use without being asked'
    )
    parser.add_argument('--json', action='store_true', help='print JSON')
    parser.set_defaults(run=run, interrupted=KEPT)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Lists the entries or fetches one; returns 0.

    Raises:
        RassError: the files cannot be fetched, or the user does not agree.
    """
    if arguments.name is None:
        if arguments.to or arguments.mirror or arguments.source or arguments.accept_licence or arguments.trust:
            raise DownloadError(f'NAME is missing. Pass one of {", ".join(ENTRIES)}.')
        entries = list(ENTRIES.values())
        text = json.dumps([summary(entry) for entry in entries], indent=1) if arguments.json else listed(entries)
        sys.stdout.write(text + '\n')
        return 0
    entry = ENTRIES[arguments.name]
    folder = (arguments.to or entry.folder).expanduser()
    source = source_of(entry, arguments)
    _say(described(entry, folder, str(source)))
    with _progress() as progress:
        tasks = {file.name: progress.add_task(file.name, total=file.size, visible=False) for file in entry.files}
        record = fetch(
            *(entry, folder, source, lambda plan: agree(entry, plan, arguments, progress)),
            lambda name, done: progress.update(tasks[name], completed=done, visible=True),
        )
    sys.stdout.write((json.dumps(record, indent=1) if arguments.json else finished(entry, folder, arguments.to)) + '\n')
    return 0


def source_of(entry: Entry, arguments: argparse.Namespace) -> Source:
    """Returns the source that the options choose, or the one in the catalog.

    Raises:
        DownloadError: the entry has no address and no source is given, or the source does not exist.
    """
    if arguments.source:
        return CopySource(entry, arguments.source.expanduser())
    if arguments.mirror is not None or entry.address:
        source = WebSource(*((entry.address, entry.hosts) if arguments.mirror is None else (arguments.mirror,)))
        proxy = proxy_of(source.address)
    elif entry.repository:
        hub = _hub()
        source = hub.HubSource(entry)
        proxy = proxy_of(source.address)
    else:
        raise DownloadError(
            f'{entry.title} has no address for a direct download. {entry.evidence} Download it from {entry.page}, and '
            f'pass it: rass-mm fetch {entry.name} --from FILE'
        )
    if proxy:
        _say(f'Proxy of the environment: {proxy}')
    return source


def agree(entry: Entry, plan: Plan, arguments: argparse.Namespace, progress: Progress) -> None:
    """Asks for what the options do not say: whether the licence is accepted, and whether files are trusted.

    Raises:
        DownloadError: the user does not agree, or cannot be asked.
    """
    questions, options = [], []
    if entry.licence.forbids and not arguments.accept_licence and plan.missing:
        questions.append('accept the licence')
        options.append('--accept-licence')
    if plan.first and not arguments.trust:
        _say(
            f'No hash is known of {", ".join(plan.first)}. If you agree, it is recorded, and later files must have it.'
        )
        questions.append('trust these files on first use')
        options.append('--trust')
    if not questions:
        return
    question = ' and '.join(questions)
    if not sys.stdin.isatty():
        raise DownloadError(
            f'You have to {question}, but there is no terminal to ask. Nothing was fetched. Pass {" ".join(options)}.'
        )
    progress.stop()
    sys.stderr.write(f'Do you {question}? [y/N] ')
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ('y', 'yes'):
        raise DownloadError('Nothing was fetched, because you did not agree.')
    progress.start()


def described(entry: Entry, folder: Path, source: str) -> str:
    """Describes an entry before its download: licence, what it forbids, source, target and origin of the hashes."""
    licence = entry.licence
    lines = [entry.title, f'  licence: {licence.name}{f" ({licence.address})" if licence.address else ""}']
    if licence.forbids:
        lines.append(f'  {licence.forbids}')
    return '\n'.join(
        [*lines, f'  from:    {source}', f'  to:      {folder}', f'  size:    {size_of(entry)}', f'  {entry.evidence}']
    )


def finished(entry: Entry, folder: Path, to: Path | None) -> str:
    """Describes the result and its use."""
    use = entry.use.format(folder=folder)
    if to is not None:
        use = use.replace(f'--base {entry.name}', f'--base {folder}').replace(' taesd', f' {folder}')
        use = use.replace(f'convert {entry.name} ', f'convert {folder / entry.files[0].name} ')
    return f'{folder}: {len(entry.files)} files, checked ({RECORD}).\nUse: {use}'


def summary(entry: Entry) -> dict[str, object]:
    """Returns the facts of an entry for JSON."""
    return {
        'name': entry.name,
        'title': entry.title,
        'licence': entry.licence.name,
        'licence_address': entry.licence.address,
        'forbids': entry.licence.forbids,
        'bytes': entry.size,
        'folder': str(entry.folder),
        'stored': entry.stored,
        'repository': entry.repository,
        'revision': entry.revision,
        'address': entry.address,
        'page': entry.page,
        'without_hash': entry.unknown,
        'evidence': entry.evidence,
        'files': [
            {'name': file.name, 'bytes': file.size, 'sha256': list(file.sha256), 'git': file.git, 'most': file.limit}
            for file in entry.files
        ],
    }


def listed(entries: list[Entry]) -> str:
    """Describes all entries: state, size, licence and folder."""
    lines = []
    for entry in entries:
        state = 'stored' if entry.stored else 'not stored'
        lines += [f'{entry.name:<11}{entry.title}', f'{"":<11}{state}, {size_of(entry)}, licence: {entry.licence.name}']
        lines.append(f'{"":<11}{entry.folder}')
    return '\n'.join([*lines, '', 'Nothing is downloaded unless you ask for it: rass-mm fetch NAME'])


def size_of(entry: Entry) -> str:
    """Describes the size of an entry."""
    if entry.size is None:
        return f'size not known (at most {sum(file.limit for file in entry.files) / 1e9:.1f} GB)'
    return f'{entry.size / 1e9:.2f} GB' if entry.size >= 1e8 else f'{entry.size / 1e6:.1f} MB'


def _hub() -> ModuleType:
    """Imports the source that needs huggingface_hub, which takes longer to import than all other parts.

    Raises:
        InstallationError: it is not installed.
    """
    try:
        return importlib.import_module('rass_mm.fetching.hub')
    except ImportError as error:
        raise InstallationError(
            f'huggingface_hub cannot be imported ({error}). Install it: pip install huggingface_hub'
        ) from None


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn('{task.description}'), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _say(text: str) -> None:
    sys.stderr.write(text + '\n')
