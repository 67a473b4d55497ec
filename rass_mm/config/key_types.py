"""Types of the values of a config by key.

They accept all that mmengine, mmseg and PyTorch accept and that has a meaning, e.g. a whole float as a number of steps.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from rass_mm.config.arguments import (
    Count,
    Finite,
    FirstStep,
    Flag,
    Interval,
    LastStep,
    Name,
    NotNegative,
    Positive,
    PositiveOrInfinite,
    Seed,
    Share,
    Steps,
    Whole,
)

Pair = tuple[Count, Count]
KEYS: dict[str, Any] = {
    **dict.fromkeys(('batch_size', 'num_groups'), Count),
    **dict.fromkeys(('max_iters', 'max_epochs', 'accumulative_counts', 'global_batch_size'), Steps),
    **dict.fromkeys(('channels', 'conv_channels', 'feat_channels', 'embed_dims'), Count | list[Count]),
    **dict.fromkeys(('in_channels', 'out_channels'), Count | list[Count] | None),
    **dict.fromkeys(('warmup_iters', 'begin'), FirstStep),
    **dict.fromkeys(('lr', 'weight_decay', 'momentum'), NotNegative),
    **dict.fromkeys(('dropout', 'start_factor', 'end_factor'), Share),
    'dropout_ratio': Annotated[float, Field(le=1)],  # mmseg writes -1 for no dropout
    **dict.fromkeys(('by_epoch', 'persistent_workers', 'shuffle', 'reduce_zero_label', 'avg_non_ignore'), Flag),
    'align_corners': bool,
    'cat_max_ratio': NotNegative,
    'crop_size': Count | Pair | tuple[Positive, Positive],
    **dict.fromkeys(('end', 'val_interval'), LastStep),
    'eta_min': NotNegative | None,
    'ignore_index': int,
    'in_index': int | list[int],
    'interval': Interval,
    'iou_metrics': list[Literal['mIoU', 'mDice', 'mFscore']] | Literal['mIoU', 'mDice', 'mFscore'],
    'loss_weight': Finite | list[Finite],
    'max_keep_ckpts': int,
    'max_norm': PositiveOrInfinite,
    'mean': list[Finite] | Finite | None,
    'num_workers': Whole,
    'pool_scales': list[Count],
    'power': NotNegative,
    'prob': Share | list[Share] | None,
    'seed': Seed | None,
}
"""Types of the values of keys, wherever they occur."""
NESTED: dict[str, Any] = {
    'data_preprocessor.size': Pair | None,
    'data_preprocessor.std': list[Positive] | Positive | None,
    'decode_head.num_classes': Count,
    'auxiliary_head.num_classes': Count,
    'dist_cfg.timeout': Positive | None,
}
"""Types of the values of keys inside another key."""
TOP: dict[str, Any] = {
    'log_level': Literal['DEBUG', 'INFO', 'WARN', 'WARNING', 'ERROR', 'FATAL', 'CRITICAL', 'NOTSET'] | Whole | None,
    'load_from': Name | None,
    'fine_tune': Name | None,
    'resume': Flag | Name | None,
    'trackers': Name | list[Name] | None,
    'work_dir': Name | None,
}
"""Types of the values of keys of the config itself."""
SLIDING: dict[str, Any] = {
    'mode': Literal['whole', 'slide', 'stitched'],
    'crop_size': Pair | None,
    'stride': Pair | None,
    'blend': Literal['mean', 'ramp'],
    'window_batch': Count,
    'keep_logits': bool | None,
}
"""Types of the values of `test_cfg` of a segmentor."""
RESTORING: dict[str, Any] = {
    'mode': Literal['restore', 'ceiling', 'input'],
    'window': Count | None,
    'overlap': Whole,
    'window_batch': Count,
    'scheme': Literal['windows', 'osediff'],
    'attention': bool,
    'color_fix': Literal['none', 'adain', 'wavelet'],
}
"""Types of the values of `test_cfg` of a restorer."""
