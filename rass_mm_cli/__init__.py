"""Entry point of `rass-mm`, table of commands and doctor. This package uses only the standard library.

It is outside `rass_mm`, because importing any module of `rass_mm` also imports torch and mmseg. This takes seconds on a
working installation and fails on a broken one. The help, the version and the doctor do not need these imports.
"""
