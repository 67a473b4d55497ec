"""Jobs on containers and with packs, with a fake network, and what they write."""

from sharded import Fake

from rass_mm.degradation.builder import build_lq_dataset
from rass_mm.files.containers.kinds import list_container, read_member
from rass_mm.files.manifest import MANIFEST, read_manifest
from rass_mm.inference import RestoreOptions, restore_files
from rass_mm.jobs.shard import Shard


def files_of(folder):
    return [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob('*.png'))]


def restored(source, out, number=None, count=4, fake=None, **options):
    shard = None if number is None else Shard(number, count)
    settings = RestoreOptions(window=64, overlap=16)
    load = Fake if fake is None else lambda: fake  # a pool pickles the function
    return restore_files(source, out, load, settings, shard=shard, **options)


def degraded(source, out, number=None, count=4, **options):
    return build_lq_dataset(source, out, shard=None if number is None else Shard(number, count), **options)


def images_in(out):
    """The bytes of all images in an output folder by name, out of files or packs; a name must not occur twice."""
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob('*.png')}
    for pack in out.glob('pack-*'):
        members = {name: read_member(member) for name, member in list_container(pack).members.items()}
        assert not members.keys() & found.keys()
        found |= members
    return found


def lines_in(out):
    return read_manifest(out / MANIFEST)[1]


def copied(photos, folder):
    for name, path in files_of(photos):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(path.read_bytes())
    return folder
