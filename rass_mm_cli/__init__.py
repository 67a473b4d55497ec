"""Start-up of `rass-mm`: table of commands and doctor, with the standard library only.

This package is outside `rass_mm` because importing any module of that package registers the plugin, which imports torch
and mmseg. That takes seconds on a working installation and fails on a broken one. Help, version and doctor work without
it.
"""
