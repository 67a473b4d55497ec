"""Robustness curves: mIoU of a segmentor by severity of a single degradation."""
