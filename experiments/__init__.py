"""Experiments that evaluate the recipe: systems x seeds on two data sets, with records, tables and plots."""
