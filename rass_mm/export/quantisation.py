"""Post-training quantisation to int8 with NNCF.

Only convolutions are quantised: ONNX Runtime 1.32 does not run the quantised matrix products of these networks.
Networks of OpenVINO are quantised as ONNX as well, because OpenVINO 2026.4 crashes while NNCF collects statistics of
theirs.
"""

from collections.abc import Sequence

import nncf
import numpy as np
import onnx

NOT_QUANTISED = ['MatMul', 'Gemm']


def quantised(model: onnx.ModelProto, calibration: Sequence[np.ndarray], name: str) -> onnx.ModelProto:
    """Quantises the weights and the inputs of the convolutions of a network.

    Args:
        model: the network.
        calibration: inputs of the network, (1, 3, h, w) float32 each.
        name: name of the input.
    """
    data = nncf.Dataset(list(calibration), lambda images: {name: images})
    ignored = nncf.IgnoredScope(types=NOT_QUANTISED, validate=False)
    return nncf.quantize(model, data, subset_size=len(calibration), ignored_scope=ignored)
