"""The stages of a model: which calls belong to which part of its time. Models describe themselves with these."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class StagePoint:
    """A method whose calls belong to a stage."""

    stage: str
    owner: Any
    method: str = 'forward'

    def below(self, name: str) -> 'StagePoint':
        """The same point under a name that tells two networks of a kind apart: 'restore: UNet'."""
        return replace(self, stage=f'{name}: {self.stage}')
