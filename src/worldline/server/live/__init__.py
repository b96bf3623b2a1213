"""Live worlds on our own wire: seats, worlds, viewers and what they are shown."""
