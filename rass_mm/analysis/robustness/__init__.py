"""Robustness curves: mIoU of a segmentor as a function of the severity of a degradation."""
