"""What `tools/schema.py` writes: one module per kind of document."""
