"""Types of the JSON records that tests, benchmarks and robustness tests write, as far as they are read again.

Further keys are allowed. Numbers are finite, except metrics, which are NaN if no image has labels.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from typing_extensions import TypedDict

from rass_mm.degradation.severity import KINDS

CLEAN = 'clean'
"""Kind of a point without degradation."""
Kind = Literal[(CLEAN, *KINDS)]
"""Kinds of points: `CLEAN` and the degradations `rass_mm.degradation.severity.KINDS`."""

Text = Annotated[str, Field(min_length=1)]
Percent = Annotated[FiniteFloat, Field(ge=0, le=100)]
Seconds = Annotated[FiniteFloat, Field(ge=0)]


class Run(TypedDict):
    """Command that added points to a curve."""

    command: str
    device: NotRequired[str | None]
    versions: NotRequired[dict[str, Any] | None]


class Environment(TypedDict):
    """Machine of a benchmark."""

    device: Text
    device_name: str
    threads: PositiveInt
    versions: NotRequired[dict[str, Any] | None]


class Median(TypedDict):
    """Duration of a pass."""

    median: Seconds


class Stage(TypedDict):
    """Duration of a stage and its share of a pass."""

    seconds: FiniteFloat
    share: FiniteFloat


class Memory(TypedDict):
    """Memory of a variant in bytes."""

    peak_bytes: NonNegativeInt | None


class Parameters(TypedDict):
    """Numbers of parameters."""

    all: NonNegativeInt
    trained: NonNegativeInt


def _counted_if_any(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    return value if value == {} else check(value)


class Variant(TypedDict):
    """Measured variant of a benchmark. `parameters` is empty for an exported model, which does not count them."""

    name: Text
    config: Text
    images_per_second: Seconds
    seconds: Median
    stages: dict[str, Stage]
    memory: Memory
    parameters: Annotated[Parameters, WrapValidator(_counted_if_any)]


class Ratio(TypedDict):
    """Speed-up of a variant."""

    variant: Text
    median: Seconds


class Benchmark(TypedDict):
    """Content of the JSON file of a benchmark."""

    kind: str
    command: str
    size: Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]
    batch: PositiveInt
    iterations: PositiveInt
    environment: Environment
    variants: Annotated[list[Variant], Field(min_length=1)]
    ratios: NotRequired[list[Ratio]]
    seed: NotRequired[Any]
    device: NotRequired[str | None]


class Point(TypedDict):
    """Result for one degradation at one severity, which is absent for clean images."""

    kind: Kind
    severity: Annotated[FiniteFloat, Field(ge=0, le=1)] | None
    mIoU: Percent
    aAcc: NotRequired[Percent]
    mAcc: NotRequired[Percent]
    ECE: NotRequired[FiniteFloat | None]
    run: NonNegativeInt


def _with_severity(point: Point) -> Point:
    if (point['severity'] is None) != (point['kind'] == CLEAN):
        raise ValueError(f'null for the kind {CLEAN!r} only (severity)')
    return point


Points = list[Annotated[Point, AfterValidator(_with_severity)]]


class Checkpoint(TypedDict):
    """Checkpoint of a curve."""

    name: Text
    sha256: Text


class Evaluator(TypedDict):
    """Metric of a curve."""

    mean_over: NotRequired[Literal['all', 'present']]


class Settings(TypedDict):
    """Settings of a curve."""

    evaluator: NotRequired[Evaluator]


class Images(TypedDict):
    """Images of a robustness test."""

    type: str
    img_path: str
    images: PositiveInt
    classes: NotRequired[list[str]]
    limited: NotRequired[bool]
    sha256: NotRequired[str]


class ReportImages(Images):
    """Images of a robustness test, with the folder that a report names."""

    root: str


class Robustness(TypedDict):
    """Robustness curve, as far as a report needs it."""

    name: Text
    seed: int
    data: ReportImages
    runs: list[Run]
    points: Points
    settings: NotRequired[Settings]
    recipe_version: NotRequired[PositiveInt]


class CurveImages(Images):
    """Images of a curve."""

    classes: Annotated[list[str], Field(min_length=1)]
    limited: bool
    sha256: str


class CurveRun(Run):
    """Command that added points to a curve that can be continued."""

    device: str
    versions: dict[str, Any]


class CurveRecord(Robustness):
    """Content of the JSON file of a curve."""

    config: Text
    checkpoint: Checkpoint
    data: CurveImages
    settings: Settings
    runs: Annotated[list[CurveRun], Field(min_length=1)]
