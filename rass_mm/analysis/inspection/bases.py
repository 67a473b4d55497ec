"""Facts of a base folder. The hash of its weights needs torch."""

from pathlib import Path

from rass_mm.analysis.inspection.facts import Facts, facts
from rass_mm.diffusion.base import read_base
from rass_mm.diffusion.base_terms import base_source, base_terms


def base(path: Path) -> Facts:
    """Returns the facts of a base folder.

    Raises:
        BaseFolderError: the folder is damaged or incomplete.
    """
    found = read_base(path.absolute())
    identity = found.identity
    terms = base_terms(found.folder, identity)
    unet = found.configs['unet']
    return facts(
        'base',
        name=identity['name'],
        model='UNet2DConditionModel, AutoencoderKL, CLIPTextModel',
        identity=identity['weights'],
        base=identity,
        licence=next((term['licence'] for term in terms if term['kind'] == 'base'), None),
        terms=terms,
        details={
            **{'source': base_source(found.folder), 'widths': unet['block_out_channels']},
            **{'context_width': found.context_width, 'vae_stride': found.vae_stride},
        },
    )
