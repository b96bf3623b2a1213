"""Weights and mathematics of the model families; knows no session and no sampler."""
