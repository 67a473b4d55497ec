"""The commands of `rass-mm`, one file each; `options` is what they share. The table of names is in `rass_mm_cli`."""
