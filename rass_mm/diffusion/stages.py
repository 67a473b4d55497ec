"""Stages of a model, with which a model describes the parts of its run time."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class StagePoint:
    """A method that is timed as part of a stage."""

    stage: str
    owner: Any
    method: str = 'forward'

    def below(self, name: str) -> 'StagePoint':
        """Returns the same point with a prefix that distinguishes two networks of one kind, e.g. 'restore: UNet'."""
        return replace(self, stage=f'{name}: {self.stage}')
