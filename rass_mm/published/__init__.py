"""Converters of published weights: OSEDiff's and SCR's pickles, and RASS's detectron2 checkpoint.

`reading` opens a file without running code, `restorers` and `segmentor` map names, `convert` writes the result.
The layouts are those of the authors' code as instantiated; the files themselves have not been seen.
"""
