"""Pixel arrays in, encoded bytes out; knows no session."""
