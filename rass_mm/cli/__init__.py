"""Commands of `rass-mm`, one per file, with shared options in `options`. The table of commands is in `rass_mm_cli`."""
