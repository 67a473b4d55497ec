"""Markdown tables of recorded tests, benchmarks and robustness curves."""
