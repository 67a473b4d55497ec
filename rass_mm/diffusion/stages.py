"""Stages of a model, whose run times can be measured separately."""

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class StagePoint:
    """A method whose run time is part of a stage.

    Attributes:
        stage: name of the stage. Several methods can belong to one stage.
        owner: the object that has the method.
        method: name of the method.
    """

    stage: str
    owner: Any
    method: str = 'forward'

    def below(self, name: str) -> 'StagePoint':
        """Returns a copy whose stage has a prefix, e.g. 'restore: UNet', to distinguish networks of the same kind."""
        return replace(self, stage=f'{name}: {self.stage}')
