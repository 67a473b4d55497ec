"""CPU seconds of the demo's trainings, kept beside the results."""

import json
import threading
from pathlib import Path

from rass_mm.files.atomic import write_text

COSTS = 'costs.json'


class Costs:
    """CPU seconds per system, start-up and final validation included.

    A training that was stopped and resumed has more than one start; the seconds are those of its last one.

    Args:
        out: the demo's folder.
    """

    def __init__(self, out: Path) -> None:
        self.file = out / COSTS
        self.lock = threading.Lock()
        self.found = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def begin(self, stem: str) -> None:
        """Counts a start."""
        self._change(stem, starts=self.found.get(stem, {}).get('starts', 0) + 1)

    def end(self, stem: str, seconds: float) -> None:
        """Keeps the seconds of a training that ended well."""
        self._change(stem, seconds=round(seconds))

    def seconds(self, stem: str) -> int:
        """CPU seconds of a finished training."""
        return self.found[stem]['seconds']

    def resumed(self, stem: str) -> bool:
        """Whether the training took more than `seconds` says."""
        return self.found[stem]['starts'] > 1

    def _change(self, stem: str, **values: int) -> None:
        with self.lock:  # two trainings run side by side
            self.found[stem] = {**self.found.get(stem, {}), **values}
            write_text(self.file, json.dumps(self.found, indent=2) + '\n')
