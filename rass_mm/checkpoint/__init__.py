"""Safe loading of checkpoints, and what they say about where they come from."""

from rass_mm.checkpoint import loading, remote  # noqa: F401  (register the safe loaders and the atomic backend)
