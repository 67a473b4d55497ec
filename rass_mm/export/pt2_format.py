"""`torch.export`: `model.pt2`."""

from pathlib import Path
from typing import Any

import torch

from rass_mm.export.formats import Run, Task

FILE = 'model.pt2'


def write(task: Task, folder: Path) -> dict[str, Any]:
    """Writes the network, which computes in the dtype that it is prepared for."""
    program = torch.export.export(task.network, (task.example,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop('stack_trace', None)  # with paths of this machine
    torch.export.save(program, folder / FILE)
    return {}


def load(folder: Path, dtype: str) -> Run:
    """Loads a network that this process has written. Files of others can contain code."""
    network = torch.export.load(folder / FILE).module()

    @torch.no_grad()
    def run(images: Any) -> Any:
        return network(torch.from_numpy(images)).numpy()

    return run


def versions() -> dict[str, str]:
    """Returns the version of PyTorch."""
    return {'torch': torch.__version__}
