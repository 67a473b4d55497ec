"""Robustness curves: mIoU of a segmentor over the severity of one degradation at a time."""
