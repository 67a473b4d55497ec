"""Visualization backends of trackers, which store less or more than those of mmengine."""

from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import MLflowVisBackend, WandbVisBackend


@VISBACKENDS.register_module()
class WandbRunBackend(WandbVisBackend):
    """`WandbVisBackend` without a copy of the Python files below the current folder, which may be private."""

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Stores the config."""
        self.experiment.config.update(config.to_dict(), allow_val_change=True)


@VISBACKENDS.register_module()
class MLflowRunBackend(MLflowVisBackend):
    """`MLflowVisBackend` that keeps the pictures of all validations, and stores the logs of its own run only.

    mmengine's backend stores all logs below the work folder, with those that MLflow stored there for earlier runs. The
    config is stored as a file only, because its values can be longer than a parameter of MLflow may be.

    Args:
        save_dir: folder of the logs, `WORK_DIR/TIME/vis_data`.
        exp_name: name of the experiment.
        tracking_uri: address of a server. None writes files to `save_dir`.
    """

    def __init__(self, save_dir: str, exp_name: str | None = None, tracking_uri: str | None = None) -> None:
        super().__init__(save_dir, exp_name=exp_name, tracking_uri=tracking_uri, tracked_config_keys=[])

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Stores a picture with the number of the iteration in its name.

        Args:
            name: file name of the picture, e.g. 'val_0_a.png'.
            image: (H, W, 3) RGB picture, 0..255.
            step: the iteration.
        """
        file = Path(name)
        self.experiment.log_image(image, f'{file.stem}_{step}{file.suffix or ".png"}')

    def close(self) -> None:
        """Stores the text log and `scalars.json`, and ends the run."""
        if not hasattr(self, '_mlflow'):
            return
        folder = Path(self._save_dir)
        for file in (*sorted(folder.parent.glob('*.log')), *sorted(folder.glob('*.json'))):
            self._mlflow.log_artifact(str(file), '')
        self._mlflow.end_run()
