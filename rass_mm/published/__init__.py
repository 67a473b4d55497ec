"""Converters of published weights: OSEDiff's and SCR's pickles, and RASS's detectron2 checkpoint.

The module `reading` opens a file without running code in it, `restorers` and `segmentor` map tensor names, `convert`
writes the result, and `conversion` checks the result of an earlier run. The layouts follow the authors' code. They have
not been tested with the published files.
"""
