"""Safe loading of checkpoints, and what they say about where they come from."""

from rass_mm.checkpoint import loading  # noqa: F401  (registers the safe loader and the atomic backend)
