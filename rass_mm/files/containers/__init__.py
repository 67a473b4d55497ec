"""Containers: tar and Parquet files that hold many image files, because file systems are slow with millions of files.

Containers come from others, so their names, sizes and types are checked before anything is read from them, and nothing
is written under a name that a container contains.
"""
