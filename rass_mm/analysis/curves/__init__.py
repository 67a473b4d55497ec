"""Curves of trainings: reads what mmengine logged, joins resumed runs, and writes a picture and tables."""
