"""`torch.export`: `model.pt2`."""

from pathlib import Path
from typing import Any

import torch

from rass_mm.export.formats import Network, Task

FILE = 'model.pt2'


def write(task: Task, folder: Path) -> dict[str, Any]:
    """Writes the network, which computes in the dtype that it is prepared for."""
    program = torch.export.export(task.network, (task.example,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # with paths of this machine
    torch.export.save(program, folder / FILE)
    return {}


def opened(folder: Path) -> set[str]:
    """Returns the names of the files that `load` opens."""
    return {FILE}


def load(folder: Path, dtype: str) -> Network:
    """Loads a network that this process has written. Files of others can contain code."""
    program = torch.export.load(folder / FILE)
    network, (images,) = program.module(), program.example_inputs[0]
    (result,) = program.graph.output_node().args[0]

    @torch.no_grad()
    def run(images: Any) -> Any:
        return network(torch.from_numpy(images)).numpy()

    return Network(run, (list(images.shape), list(result.meta['val'].shape)))


def versions() -> dict[str, str]:
    """Returns the version of PyTorch."""
    return {'torch': torch.__version__}
