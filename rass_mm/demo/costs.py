"""Records the CPU time of the demo's training runs in a file next to the results."""

import json
import threading
from pathlib import Path

from rass_mm.files.atomic import write_text
from rass_mm.files.schemas import read_json

COSTS = 'costs.json'


class Costs:
    """CPU seconds of each training run, including start-up and final validation.

    For a training run that was interrupted and resumed, only the time since its last start is stored.

    Args:
        out: folder of the demo.
    """

    def __init__(self, out: Path) -> None:
        self.file = out / COSTS
        self.lock = threading.Lock()
        self.found = self._read() if self.file.exists() else {}

    def _read(self) -> dict[str, dict[str, int]]:
        return read_json(self.file, dict[str, dict[str, int]], 'Delete the file; the costs are measured again.')

    def begin(self, stem: str) -> None:
        """Records the start of a training run."""
        self._change(stem, starts=self.found.get(stem, {}).get('starts', 0) + 1)

    def end(self, stem: str, seconds: float) -> None:
        """Stores the seconds of a successful training run."""
        self._change(stem, seconds=round(seconds))

    def seconds(self, stem: str) -> int:
        """Returns the CPU seconds of a finished training run."""
        return self.found[stem]['seconds']

    def resumed(self, stem: str) -> bool:
        """Returns whether the training run was resumed, so that `seconds` covers only a part of it."""
        return self.found[stem]['starts'] > 1

    def _change(self, stem: str, **values: int) -> None:
        with self.lock:  # two training runs are active at the same time
            self.found[stem] = {**self.found.get(stem, {}), **values}
            write_text(self.file, json.dumps(self.found, indent=2) + '\n')
