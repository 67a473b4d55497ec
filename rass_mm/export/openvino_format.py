"""OpenVINO IR: `model.xml` and `model.bin`."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as operators

from rass_mm.devices import cpu_has_bfloat16
from rass_mm.export.formats import INPUT, MODULES, OUTPUT, Network, Task
from rass_mm.export.metadata import OPENED
from rass_mm.files.optional import import_optional

FILE = 'model.xml'
LEAST = 256
"""Constants with fewer values, such as shapes and scales, keep float32."""


def write(task: Task, folder: Path) -> dict[str, Any]:
    """Writes the network. Weights in 16 bits are followed by a conversion to float32 in the graph."""
    model = converted_from_onnx(task) if task.dtype == 'int8' else converted(task)
    model.inputs[0].set_names({INPUT})
    model.outputs[0].set_names({OUTPUT})
    if task.dtype == 'bfloat16':
        store_bfloat16(model)
    openvino.save_model(model, folder / FILE, compress_to_fp16=task.dtype == 'float16')
    return {}


def converted(task: Task) -> openvino.Model:
    """Converts a network."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)  # sizes become constants, as intended
        task.network(task.example)  # stores positions, so that the two passes of the conversion are the same
        return openvino.convert_model(task.network, example_input=task.example, input=list(task.example.shape))


def converted_from_onnx(task: Task) -> openvino.Model:
    """Converts a network that is quantised as ONNX, see `rass_mm.export.quantisation`."""
    form = import_optional(MODULES['onnx'], '--int8')
    with tempfile.TemporaryDirectory() as folder:
        form.write(task, Path(folder))
        return openvino.convert_model(Path(folder) / form.FILE, share_weights=False)


def store_bfloat16(model: openvino.Model) -> None:
    """Replaces float32 constants by constants in bfloat16 that are converted to float32, in place."""
    for node in model.get_ops():
        if node.get_type_name() != 'Constant' or node.get_element_type() != openvino.Type.f32:
            continue
        values = node.data
        if values.size < LEAST:
            continue
        rounded = torch.from_numpy(np.array(values)).to(torch.bfloat16)
        stored = openvino.Tensor(openvino.Type.bf16, openvino.Shape(list(rounded.shape)))  # owns its memory
        np.copyto(stored.data.view(np.int16), rounded.view(torch.int16).numpy())
        constant = operators.constant(stored)
        constant.set_friendly_name(node.get_friendly_name())
        converted = operators.convert(constant, 'f32')
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(converted.output(0))


def opened(folder: Path) -> set[str]:
    """Returns the names of the files that `load` opens."""
    return set(OPENED['openvino'])


def load(folder: Path, dtype: str) -> Network:
    """Compiles the network for the CPU, with as many threads as PyTorch uses.

    It computes in float32, or in bfloat16 if the weights are in bfloat16 and the CPU has instructions for it.
    """
    precision = 'bf16' if dtype == 'bfloat16' and cpu_has_bfloat16() else 'f32'
    settings = {'INFERENCE_NUM_THREADS': torch.get_num_threads(), 'INFERENCE_PRECISION_HINT': precision}
    compiled = openvino.Core().compile_model(folder / FILE, 'CPU', settings)
    shapes = tuple(
        [side.get_length() if side.is_static else None for side in port.partial_shape]
        for port in (compiled.input(), compiled.output())
    )
    return Network(lambda images: compiled(images)[0], shapes)


def versions() -> dict[str, str]:
    """Returns the version of OpenVINO."""
    return {'openvino': openvino.__version__}
