"""Measurements of trained models: speed, robustness, and the report of recorded results."""
