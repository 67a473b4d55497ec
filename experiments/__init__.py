"""Does the recipe hold? Systems x seeds on two data sets: runs, records, tables and plots. See README.md."""
