"""Transformations: one file for each thing done to an update."""
