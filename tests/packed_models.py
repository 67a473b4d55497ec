"""Changes packs as an attacker would: the manifest agrees with the files again."""

import hashlib
import json
import shutil


def manifest_of(folder):
    """Returns the manifest of a pack."""
    return json.loads((folder / 'pack.json').read_text())


def write_manifest(folder, content):
    """Writes the manifest of a pack."""
    (folder / 'pack.json').write_text(json.dumps(content))


def sealed(folder, *added):
    """Writes the sizes and hashes of the files, and of further ones, to the manifest; returns the folder."""
    content = manifest_of(folder)
    for name in (*content['files'], *added):
        data = (folder / name).read_bytes()
        content['files'][name] = {'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest()}
    write_manifest(folder, content)
    return folder


def copied(pack, tmp_path):
    """Returns a copy of a pack that may be changed."""
    return shutil.copytree(pack, tmp_path / 'copy')
