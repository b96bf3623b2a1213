"""Noise schedules and sampling steps; knows no model."""
