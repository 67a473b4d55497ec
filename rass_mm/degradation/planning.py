"""Plan of a degraded copy: which images it has, out of which folder or containers, and the seed of each."""

import hashlib
import logging
from pathlib import Path

from rass_mm.degradation.copies import EXTENSIONS, Task
from rass_mm.degradation.recipe import Recipe
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.containers.kinds import is_container
from rass_mm.files.containers.members import Member
from rass_mm.files.containers.search import check_names, images_in, refuse_collisions, refuse_inside
from rass_mm.files.naming import linked_into
from rass_mm.files.walking import LeftOut, chosen_files, described_left_out, fixed_part, is_pattern, searched
from rass_mm.jobs.part import Part

logger = logging.getLogger(__name__)


def planned(images: Path, out: Path, seed: int, recipe: Recipe, suffix: str | None, pack: str | None) -> list[Task]:
    """Lists the images, sorted by relative path, and checks the folders.

    Raises:
        ConfigError: the file type is not supported.
        DataError: the image folder is missing or empty, or files in the output folder would conflict.
    """
    _check_places(images, out)
    if suffix is not None and suffix.lower() not in EXTENSIONS:
        raise ConfigError(f'Images of type {suffix} cannot be written. Choose one of {", ".join(EXTENSIONS)}.')
    root, (names, left_out, members) = root_of(images), _found(images)
    for line in described_left_out(left_out):
        logger.warning(line)
    if not names:
        raise DataError(f'No images found in {images}. Supported types: {", ".join(EXTENSIONS)}.')
    refuse_inside(out, members.values())
    linked = None if members else linked_into(root, names, out)
    if linked is not None:
        raise DataError(
            f'{linked} is a link into the output folder {out}. The next run would degrade the degraded images again. '
            'Choose another output folder, or remove the link.'
        )
    tasks = []
    for name, output in _outputs(images, names, suffix).items():
        task = Task(root / name, out / output, name, output, image_seed(seed, name), recipe)
        tasks.append(task._replace(member=members.get(name)))
    _check_outputs(out, tasks, pack)
    return tasks


def _check_places(images: Path, out: Path) -> None:
    found, root = searched(images), root_of(images)
    if not root.is_dir() and not is_container(root):
        raise DataError(
            f'The image folder {root} does not exist or is not a folder, a .tar or a .parquet file, or a pattern in '
            'quotes.'
        )
    if root.resolve() in (out.resolve(), *(out.resolve().parents if found is None or found[1] else ())):
        raise DataError(
            f'The output folder {out} is inside the image folder {images}. The next run would degrade the degraded '
            'images again. Choose an output folder outside of the image folder.'
        )


def root_of(images: Path) -> Path:
    """Returns what the images are below: the folder or container, or the part of a pattern before its wildcards."""
    return fixed_part(images) if is_pattern(images) else images


def _outputs(images: Path, names: list[str], suffix: str | None) -> dict[str, str]:
    """Returns the names of the copies by the names of the images."""
    outputs, owners = {}, {}
    for name in names:
        output = name if suffix is None else Path(name).with_suffix(suffix).as_posix()
        if output in owners:
            raise DataError(
                f'{owners[output]} and {name} in {images} would both become {output}. Rename one of them, or keep the '
                'original file types with --ext keep.'
            )
        outputs[name], owners[output] = output, name
    return outputs


def _check_outputs(out: Path, tasks: list[Task], pack: str | None) -> None:
    sources = {task.source.resolve() for task in tasks if pack is None and task.member is None}
    overwritten = next((task.target for task in tasks if sources and task.target.resolve() in sources), None)
    if overwritten is not None:
        raise DataError(f'{overwritten} is one of the images to degrade. Choose another output folder.')
    outputs = [task.output for task in tasks]
    if pack is not None:
        check_names(pack, outputs)
    elif any(task.member for task in tasks):
        refuse_collisions(out, outputs)


def _found(images: Path) -> tuple[list[str], LeftOut, dict[str, Member]]:
    """Returns the names of the images, the files that are not used, and the images in containers by name."""
    if is_container(images):
        members, left_out = images_in(images.parent, [images], EXTENSIONS)
        return sorted(members), left_out, members
    root, _, paths = searched(images)
    paths = list(paths)
    names, left_out = chosen_files(root, paths, EXTENSIONS)
    if names or not any(map(is_container, paths)):
        return names, left_out, {}
    members, left_out = images_in(root, paths, EXTENSIONS)
    return sorted(members), left_out, members


def staged(task: Task, part: Part, pack: str | None) -> Task:
    """Returns a task whose source out of a container, and whose copy for a pack, are in the staging folder."""
    if task.member is not None:
        task = task._replace(source=part.staged('image', task.image))
    return task if pack is None else task._replace(target=part.staged('output', task.output))


def place(task: Task) -> tuple[str, tuple[int, int]]:
    """Returns the key that sorts images in the order in which their containers are read."""
    return (str(task.member.container), task.member.place) if task.member else ('', (0, 0))


def image_seed(seed: int, image: str) -> int:
    """Returns the seed of one image. It has 48 bits, because some JSON readers support integers only up to 53 bits."""
    return int.from_bytes(hashlib.sha256(f'{seed}/{image}'.encode('utf-8', 'surrogateescape')).digest()[:6], 'big')
