"""Implementation of `rass-mm check-data`: listing, reading, findings and tables."""
