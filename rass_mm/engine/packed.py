"""Weights of a segmentor in a model pack, as a checkpoint of mmengine."""

from typing import Any

from safetensors.torch import load_file

from rass_mm.errors import PackError
from rass_mm.files.packs.reading import AGAIN, Pack
from rass_mm.files.packs.schema import WEIGHTS
from rass_mm.files.tensors import first_line


def packed_checkpoint(pack: Pack) -> dict[str, Any]:
    """Reads the weights, the classes and the palette of an opened pack.

    Raises:
        PackError: the file of the weights cannot be read.
    """
    try:
        state = load_file(pack.path(WEIGHTS))
    except Exception as error:  # safetensors has its own error type without a common base class
        raise PackError(f'{pack.path(WEIGHTS)} cannot be read ({first_line(error)}). {AGAIN}') from None
    known = {'classes': list(pack.manifest['classes']), 'palette': [list(color) for color in pack.manifest['palette']]}
    return {'state_dict': state, 'meta': {'dataset_meta': known}}
