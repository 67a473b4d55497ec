"""mmseg plugin: registers the backbone, neck, heads, prompts, segmentors, metrics and hooks with mmseg."""

from rass_mm.segmentation import prompts  # noqa: F401  (registers on import)
from rass_mm.segmentation.backbone import DiffusionBackbone
from rass_mm.segmentation.calibration import CalibrationMetric
from rass_mm.segmentation.fitting import FittingCheckpointHook
from rass_mm.segmentation.heads import Float32PixelDecoder, RASSMask2FormerHead
from rass_mm.segmentation.labelled_classes import LabelledClassesHook
from rass_mm.segmentation.logits import LabelsOnlyHook
from rass_mm.segmentation.metric import MeanIoUMetric, PerClassIoUMetric
from rass_mm.segmentation.neck import FeatureProjection
from rass_mm.segmentation.pictures import PredictionImagesHook
from rass_mm.segmentation.preprocessing import RawPadPreProcessor
from rass_mm.segmentation.rass import RASS
from rass_mm.segmentation.restore_then_segment import FileRestorer, RestoreThenSegment
from rass_mm.segmentation.terms import TermsHook

__all__ = [
    'RASS',
    'CalibrationMetric',
    'DiffusionBackbone',
    'FeatureProjection',
    'FileRestorer',
    'FittingCheckpointHook',
    'Float32PixelDecoder',
    'LabelledClassesHook',
    'LabelsOnlyHook',
    'MeanIoUMetric',
    'PerClassIoUMetric',
    'PredictionImagesHook',
    'RASSMask2FormerHead',
    'RawPadPreProcessor',
    'RestoreThenSegment',
    'TermsHook',
]
