"""Source of files: a Hugging Face hub.

Addresses, revisions, sizes and the local cache of the hub come from `huggingface_hub`. The bytes do not: its release
2.4 keeps no partial file when a command ends, does not limit the size of a file whose server states none, and follows
redirects to any host.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from rass_mm.errors import DownloadError
from rass_mm.fetching.checking import measure
from rass_mm.fetching.copies import copy_file
from rass_mm.fetching.places import staged
from rass_mm.fetching.web import TIMEOUT, WebSource
from rass_mm_cli.catalog import Entry, RemoteFile

PUBLIC = 'https://huggingface.co'
HOSTS = ('.huggingface.co', '.hf.co')
"""The hub and the servers of its files."""
MISSING = (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError)


class HubSource(WebSource):
    """Downloads the files of an entry from a hub, at its pinned revision and without an account.

    The address of the hub is `$HF_ENDPOINT`, the variable of `huggingface_hub`, or that of the public one.
    """

    def __init__(self, entry: Entry) -> None:
        super().__init__(os.environ.get('HF_ENDPOINT') or PUBLIC, HOSTS)
        self.entry = entry

    def __str__(self) -> str:
        return f'{self.address}/{self.entry.repository} at {self.entry.revision}'

    def obtain(self, file: RemoteFile, folder: Path, report: Callable[[int], None]) -> Path:
        """Copies a file from the cache of the hub, or downloads it. Returns its path in the staging folder.

        Args:
            file: the file.
            folder: the target folder.
            report: called with the number of bytes that are there.

        Raises:
            DownloadError: as for `WebSource.obtain`, or the hub states another revision, size or hash.
        """
        cached = hub.try_to_load_from_cache(self.entry.repository, file.name, revision=self.entry.revision)
        if isinstance(cached, str):
            return copy_file(Path(cached), file, staged(folder, file.name), report)
        etag = self._stated(file).etag or ''
        path = super().obtain(file, folder, report)
        if not file.sha256 and len(etag) == 64 and measure(path).sha256 != etag:
            self.discard(file, folder)
            raise DownloadError(f'{file.name} differs from the SHA-256 that the hub states, {etag}. It was removed.')
        return path

    def file_address(self, file: RemoteFile) -> str:
        """Returns the address of a file at the pinned revision."""
        place = (self.entry.repository, file.name)
        return hub.hf_hub_url(*place, revision=self.entry.revision, endpoint=self.address)

    def _stated(self, file: RemoteFile) -> Any:
        """Returns what the hub states about a file, after a check of revision and size."""
        try:
            stated = hub.get_hf_file_metadata(self.file_address(file), token=False, timeout=TIMEOUT)
        except MISSING as error:
            raise DownloadError(f'{self} has no {file.name} ({type(error).__name__}).') from None
        except Exception as error:  # the errors of its HTTP library differ from release to release
            cause = ' '.join(str(error).split())[:300] or type(error).__name__
            raise DownloadError(f'{self} cannot be reached: {cause}. Check the network and HF_ENDPOINT.') from None
        if stated.commit_hash != self.entry.revision:
            raise DownloadError(f'{self} answers with the revision {stated.commit_hash}. Nothing was downloaded.')
        self.check_size(file, stated.size, str(self))
        return stated
