"""Post-training quantisation to int8 with NNCF."""

from collections.abc import Sequence
from typing import Any

import nncf
import numpy as np


def quantised(model: Any, calibration: Sequence[np.ndarray], name: str) -> Any:
    """Quantises the weights and activations of a network.

    Args:
        model: a model of OpenVINO or ONNX.
        calibration: inputs of the network, (1, 3, h, w) float32 each.
        name: name of the input.

    Returns:
        The quantised model, of the same kind.
    """
    data = nncf.Dataset(list(calibration), lambda images: {name: images})
    return nncf.quantize(model, data, subset_size=len(calibration))
