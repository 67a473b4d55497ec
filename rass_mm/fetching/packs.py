"""Model packs from a repository of the Hugging Face hub."""

import os
from pathlib import Path
from typing import Any

import huggingface_hub as hub

from rass_mm.errors import DownloadError
from rass_mm.files.packs.reading import is_pack, read_pack
from rass_mm.files.packs.schema import PACK
from rass_mm_cli.bases import cache_folder


def find_pack(
    name: str | os.PathLike, cache: str | os.PathLike | None = None, local_only: bool = True, **settings: Any
) -> Path:
    """Returns the folder of a pack, which is downloaded if that is allowed and the folder does not exist.

    The manifest is downloaded first, and then only the files that it lists.

    Args:
        name: a folder, or the name of a repository, `OWNER/NAME`.
        cache: folder of downloaded packs; None uses `packs` in the cache folder.
        local_only: whether to use no network.
        settings: `revision`, `token` and `force_download` of `huggingface_hub.hf_hub_download`.

    Raises:
        DownloadError: the pack is not on this machine, and the network is not allowed, or the download failed.
        PackError: the manifest of the repository cannot be used.
    """
    if Path(name).expanduser().exists():
        return Path(name).expanduser()
    try:
        hub.utils.validate_repo_id(str(name))
    except ValueError:
        raise DownloadError(f'{name} is neither a folder nor the name of a repository (OWNER/NAME).') from None
    revision = settings.get('revision') or 'main'
    folder = Path(cache or cache_folder() / 'packs') / f'{str(name).replace("/", "--")}@{revision.replace("/", "--")}'
    if local_only:
        if is_pack(folder):
            return folder
        raise DownloadError(
            f'{name} is not a folder, and was not downloaded to {folder}. Nothing is downloaded unless you ask for it: '
            'pass local_files_only=False.'
        )
    _download(str(name), PACK, folder, settings)
    for file in read_pack(folder).manifest['files']:
        _download(str(name), file, folder, settings)
    return folder


def _download(repository: str, file: str, folder: Path, settings: dict[str, Any]) -> None:
    try:
        hub.hf_hub_download(repository, file, local_dir=folder, **settings)
    except Exception as error:  # the errors of its HTTP library differ from release to release
        cause = ' '.join(str(error).split())[:300] or type(error).__name__
        raise DownloadError(f'{file} of {repository} cannot be downloaded: {cause}') from None
