"""The small base: its images, its training and its linear start."""
