"""The `worldline` command line."""
