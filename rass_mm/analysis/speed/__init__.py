"""Benchmark of configs: speed by stage, compared with other configs and with the measured limits of the device."""
