"""ONNX with standard operators: `model.onnx`, and `model.onnx.data` with the weights of a large model."""

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import onnxscript
import torch

from rass_mm.errors import ConfigError
from rass_mm.export.formats import INPUT, OUTPUT, Network, Task
from rass_mm.files.optional import import_optional

for name in ('onnx_ir', 'onnxscript', 'torch.onnx'):
    logging.getLogger(name).setLevel(logging.ERROR)  # they describe each step of a conversion

FILE = 'model.onnx'
OPSET = 20
LEAST = 256
"""Weights with fewer values keep float32."""
LARGEST = 1_900_000_000
"""Bytes of weights in the file of a network, which protobuf limits to 2 GiB."""
STORED = {'bfloat16': (torch.bfloat16, onnx_ir.DataType.BFLOAT16), 'float16': (torch.float16, onnx_ir.DataType.FLOAT16)}


def write(task: Task, folder: Path) -> dict[str, Any]:
    """Writes the network. Weights in 16 bits are followed by a conversion to float32 in the graph.

    Raises:
        ConfigError: the network needs operators that are not part of ONNX.
    """
    program = torch.onnx.export(
        *(task.network, (task.example,)),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        verbose=False,
    )
    if task.dtype in STORED:
        store(program.model, *STORED[task.dtype])
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces with paths of this machine, a fifth of a small file
    if task.dtype == 'int8':
        quantisation = import_optional('rass_mm.export.quantisation', '--int8')
        with tempfile.TemporaryDirectory(dir=folder) as temporary:  # the data file of float32 weights is not kept
            program.save(Path(temporary) / FILE)
            model = onnx.load(Path(temporary) / FILE)
        save(quantisation.quantised(model, task.calibration, INPUT), folder / FILE)
    else:
        program.save(folder / FILE)
    check_operators(folder / FILE)
    return {'opset': OPSET}


def store(model: onnx_ir.Model, dtype: torch.dtype, kind: onnx_ir.DataType) -> None:
    """Replaces float32 weights by weights in 16 bits that are converted to float32, in place."""
    graph = model.graph
    for value in list(graph.initializers.values()):
        array = value.const_value
        if array is None or array.dtype != onnx_ir.DataType.FLOAT or array.size < LEAST:
            continue
        rounded = torch.from_numpy(np.array(array.numpy())).to(dtype)
        bits = rounded.view(torch.int16).numpy().view(kind.numpy())
        name = f'{value.name}.stored'
        stored = onnx_ir.Value(
            name=name,
            type=onnx_ir.TensorType(kind),
            shape=onnx_ir.Shape(array.shape),
            const_value=onnx_ir.tensor(bits, dtype=kind, name=name),
        )
        cast = onnx_ir.node('Cast', [stored], {'to': onnx_ir.DataType.FLOAT})
        value.replace_all_uses_with(cast.outputs[0])
        graph.insert_before(graph[0], cast)
        del graph.initializers[value.name]
        graph.initializers[name] = stored


def save(model: onnx.ModelProto, file: Path) -> None:
    """Saves a network, with its weights in a data file beside it if they are larger than `LARGEST`."""
    external = sum(weights.ByteSize() for weights in model.graph.initializer) > LARGEST
    onnx.save(model, file, save_as_external_data=external, location=f'{file.name}.data')


def check_operators(file: Path) -> None:
    """Checks that a network contains only standard operators.

    Raises:
        ConfigError: it contains others; the message names them.
    """
    model = onnx.load(file, load_external_data=False)
    others = {f'{node.domain}.{node.op_type}' for node in model.graph.node if node.domain not in ('', 'ai.onnx')}
    if others or model.functions:
        named = ', '.join(sorted(others) or sorted(function.name for function in model.functions))
        raise ConfigError(
            f'The network needs operators that are not part of ONNX ({named}). Export it with --format openvino.'
        )


def opened(folder: Path) -> set[str]:
    """Returns the paths of the files that `load` opens: the network and those of its external data."""
    return {FILE} | set(external_data(onnx.load(folder / FILE, load_external_data=False)))


def external_data(message: Any) -> Iterator[str]:
    """Yields the path of the data file of each tensor of a network that is not in the network's file.

    Args:
        message: the network as a protobuf message, or a part of it.
    """
    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL:
            yield next((entry.value for entry in message.external_data if entry.key == 'location'), '')
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, 'ListFields') else value:
                yield from external_data(part)


def load(folder: Path, dtype: str) -> Network:
    """Loads the network for the CPU, with as many threads as PyTorch uses. It computes in float32."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(folder / FILE, options, ['CPUExecutionProvider'])
    (images,), (result,) = session.get_inputs(), session.get_outputs()
    return Network(lambda values: session.run(None, {images.name: values})[0], (images.shape, result.shape))


def versions() -> dict[str, str]:
    """Returns the versions of ONNX, of the converter and of the runtime."""
    return {module.__name__: module.__version__ for module in (onnx, onnxscript, onnxruntime)}
