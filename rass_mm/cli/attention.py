"""`rass-mm attention`: draws maps of the attention of a restorer's UNet to class names."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2

from rass_mm.cli.options import add_device, add_dtype, add_max_pixels, add_restorer, names
from rass_mm.devices import chosen_device
from rass_mm.diffusion.adapter_files import read_adapter
from rass_mm.diffusion.attention import SECOND_HALF
from rass_mm.diffusion.base import find_base
from rass_mm.diffusion.pack_base import restorer_files
from rass_mm.diffusion.restorer import load_restorer
from rass_mm.errors import ConfigError, DataError
from rass_mm.files.atomic import check_writable, write_bytes
from rass_mm.files.images import read_picture
from rass_mm.files.locks import held
from rass_mm.files.naming import refuse_inputs, shortened
from rass_mm.inference.attention import COUNT, adapter_classes, attention_page, iterate_attention, strongest


def add_arguments(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the arguments of `rass-mm attention`."""
    parser.add_argument('images', metavar='IMAGE', nargs='+', type=Path, help='image files of any size')
    add_restorer(parser)
    parser.add_argument(
        '--out', type=Path, default=Path('attention'), help='folder for the pictures (default: attention)'
    )
    parser.add_argument(
        '--classes',
        type=names,
        help=f'class names, comma-separated (default: the {COUNT} whose maps have the largest ratio of peak to mean)',
    )
    parser.add_argument(
        '--layers',
        type=names,
        default=list(SECOND_HALF),
        help=f'blocks of the UNet, comma-separated (default: {",".join(SECOND_HALF)})',
    )
    add_max_pixels(parser)
    add_device(parser)
    add_dtype(parser, 'float32')
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Writes one picture per image and prints its path; returns the exit status.

    Raises:
        RassError: an error that the user can fix; finished pictures are kept.
    """
    file, base = restorer_files(arguments.adapter, arguments.base)
    if base is None:
        raise ConfigError('The Stable Diffusion folder that the adapter was trained on is missing. Set --base.')
    adapter = read_adapter(file)
    classes = adapter_classes(adapter)
    wanted = checked_names(arguments.classes, classes)
    targets = page_targets(arguments.images, arguments.out)
    with held(arguments.out):
        check_writable(next(iter(targets.values())))
        device = chosen_device(arguments.device)
        dtype = arguments.dtype or 'float32'
        restorer = load_restorer(adapter, find_base(base), device=str(device), dtype=dtype)
        broken = []
        for source, target in targets.items():
            try:
                image = read_picture(source, arguments.max_pixels).pixels
            except DataError as error:
                broken.append(str(error))
                continue
            maps = iterate_attention(restorer, image, classes, arguments.layers)
            chosen = {name: values for name, values in maps if name in wanted} if wanted else dict(strongest(maps))
            write_bytes(target, cv2.imencode('.png', attention_page(image, chosen)[..., ::-1])[1].tobytes())
            sys.stdout.write(f'{target}\n')  # rich cannot print a name that is not UTF-8
    if broken:
        raise DataError('\n'.join(broken))
    return 0


def checked_names(names: Sequence[str] | None, classes: Sequence[str]) -> list[str]:
    """Returns the requested class names; an empty list means no selection.

    Raises:
        ConfigError: a requested class is not one of the adapter's classes.
    """
    unknown = [name for name in names or () if name not in classes]
    if unknown:
        raise ConfigError(f'The adapter has no class {unknown[0]!r}. Choose from: {", ".join(classes)}.')
    return list(names or ())


def page_targets(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Maps each image to `<out>/<stem>_attention.png`. A stem that would make the name too long is shortened.

    Raises:
        DataError: two images have the same output path, or an output would overwrite an input image.
    """
    targets = {image: out / shortened(image.stem, '_attention.png') for image in images}
    owners: dict[Path, Path] = {}
    for image, target in targets.items():
        other = owners.setdefault(target, image)
        if other is not image:
            raise DataError(f'{other} and {image} would both be written to {target}. Use a separate --out for each.')
    refuse_inputs(targets.values(), targets, '--out')
    return targets
