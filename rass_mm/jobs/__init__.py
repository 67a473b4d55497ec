"""Jobs on many files that several runs share: shards, their manifests and marks, their state, and their merge.

A job has a plan (the images and their outputs), tasks (the images of one run), work (one image at a time) and manifest
lines (finished images). This package knows only names and lines: which images belong to a run (`shard`, `variables`),
where the run records them (`part`), and what all runs have recorded (`status`, `merge`).
"""
