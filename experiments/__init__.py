"""Does the recipe hold? Systems x seeds on two data sets, their records, tables and pictures. See README.md."""
