"""Restoration of tiny images in shards with a fake network."""

from pathlib import Path

from rass_mm.files.verified import VERIFIED
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.jobs.shard import Shard


class Fake:
    """Fake restorer that darkens images. `stop` raises the exception at this call."""

    size_multiple = 16

    def __init__(self, stop=None, error=KeyboardInterrupt):
        self.calls, self.stop, self.error = 0, stop, error

    def __call__(self, images):
        self.calls += 1
        if self.calls == self.stop:
            raise self.error
        return (images - 1) / 2


def restore_images(photos, out, number=None, count=4, fake=None, model=None, **options):
    """Restores all images, or one shard of them; returns the summary."""
    options = RestoreOptions(**{'window': 64, 'overlap': 16, **options})
    shard = None if number is None else Shard(number, count)
    fake = fake or Fake()
    return restore_files(photos, out, lambda: fake, options, model, shard=shard)


def contents(folder):
    """The bytes of all files, except the modification times, which are never the same."""
    files = (path for path in Path(folder).rglob('*') if path.is_file() and path.name != VERIFIED)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
