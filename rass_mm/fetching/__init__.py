"""Published files by name: from a hub, a mirror or a folder into the folder where commands look for them.

A file is written to a staging folder inside the target folder, checked, and renamed. It never has its final name
before the check. Files whose hash is in the catalog (`rass_mm_cli.catalog`) must have this hash. All other files are
trusted on first use: their hash is recorded, and later files of the same name must have the same hash. Weights are
stored as they are and never loaded.
"""
