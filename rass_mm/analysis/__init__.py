"""Measurements of trained models: speed, robustness and reports of recorded results."""
