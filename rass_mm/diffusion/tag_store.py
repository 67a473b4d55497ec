"""Cache of image tags, and the keys of images in it."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import Tensor

from rass_mm.files.atomic import write_text
from rass_mm.files.regular import check_regular


class TagStore:
    """Cache of image tags in memory and in one JSON file per image. Several processes can share the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.memory: dict[str, list[str]] = {}

    def get(self, key: str) -> list[str] | None:
        """Returns the tags stored for `key` (see `image_key`), or None if none are stored or the file is damaged."""
        if key not in self.memory:
            with suppress(OSError, ValueError, TypeError):  # DataError is a ValueError
                check_regular(self._file(key))
                self.memory[key] = [str(tag) for tag in json.loads(self._file(key).read_text(encoding='utf-8'))]
        return self.memory.get(key)

    def put(self, key: str, tags: list[str]) -> None:
        """Stores the tags of the image with the given `image_key`. The file is written atomically."""
        self.memory[key] = tags
        write_text(self._file(key), json.dumps(tags, ensure_ascii=False))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f'{key}.json'


def image_key(image: Tensor) -> str:
    """Computes a hash of a (3, h, w) image in [-1, 1] that does not depend on rounding errors of the device."""
    # In 16 bits, an 8-bit value is an integer, so no value is close to a tie when it is rounded.
    values = ((image.double() + 1) * 32767.5).round().clamp(0, 65535).cpu().numpy().astype(np.uint16)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()[:32]
