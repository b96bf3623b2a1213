"""Measurements: one command each, a table and JSON out."""
