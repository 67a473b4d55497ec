"""Hash that identifies a test set by the names and contents of its files, regardless of their location."""

import hashlib
import os
from pathlib import Path
from typing import Any

from rass_mm.datasets.wrappers import data_infos
from rass_mm.files.hashing import update_whole

TRUTH = (('gt_path',), ('img_path', 'seg_map_path'))
"""Keys of the files that identify a sample, in order of preference."""


def data_hash(dataset: Any) -> str | None:
    """Returns a hash of the files of a test set, or None if it has no local files. Copies of a set have equal hashes.

    The hash has 16 hex digits and covers the images and the labels. In a data set of degraded and clean images, it
    covers only the clean images, because the degraded ones differ between tests.

    Args:
        dataset: a built data set, or a wrapper with `get_data_info`.
    """
    digest, seen = hashlib.sha256(), 0
    for info in data_infos(dataset):
        keys = next((keys for keys in TRUTH if info.get(keys[0])), ())
        for file in (Path(info[key]) for key in keys if info.get(key)):
            if file.is_file():
                digest.update(os.fsencode(f'{file.stem}:{file.stat().st_size}:'))
                update_whole(digest, file)
                seen += 1
    return digest.hexdigest()[:16] if seen else None
