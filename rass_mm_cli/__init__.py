"""Start-up of `rass-mm`: the table of commands and the doctor. Standard library only.

It stands outside `rass_mm` because importing anything from that package registers the plugin, which imports torch and
mmseg: seconds on a working installation, an error on a broken one. Help, version and doctor answer without it.
"""
