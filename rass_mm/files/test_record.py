"""Content of the `metrics.json` of a test, as far as it is read again. Further keys are allowed."""

from typing import Annotated, Any, NotRequired

from pydantic import Field, NonNegativeInt
from typing_extensions import TypedDict


class TestRecord(TypedDict):
    """Content of the `metrics.json` of a test."""

    kind: str
    config: Annotated[str, Field(min_length=1)]
    protocol: str
    command: str
    metrics: Annotated[dict[str, float], Field(min_length=1)]
    data: dict[str, Any] | None
    versions: dict[str, Any]
    images: NonNegativeInt
    seed: NotRequired[Any]
    device: NotRequired[str | None]
    dataset: NotRequired[str | None]
    data_root: NotRequired[str | None]
    mode: NotRequired[str | None]
    tta: NotRequired[bool | None]
    test_set: NotRequired[str | None]
    checkpoint: NotRequired[str | None]
    checkpoint_hash: NotRequired[str | None]
    recipe_version: NotRequired[dict[str, Any]]
