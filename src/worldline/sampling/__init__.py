"""Noise schedules and denoising steps; knows nothing about models or sessions."""
