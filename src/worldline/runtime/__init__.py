"""The engine: one thread owns the device; knows no event loop and no socket."""
