"""Leaf layer: errors, messages, controls and camera mathematics; stdlib, msgspec and numpy only."""
