"""Converters of published weights: OSEDiff's and SCR's pickles, and RASS's detectron2 checkpoint.

`reading` opens a file without running code, `restorers` and `segmentor` map tensor names, and `convert` writes the
result. The layouts follow the authors' code; they have not been tested with the published files.
"""
