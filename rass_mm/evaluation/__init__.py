"""Metrics that no dependency has right, and table writers."""
