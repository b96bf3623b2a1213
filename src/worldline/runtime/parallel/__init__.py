"""Several devices for one world: groups of ranks, and what they share out among themselves."""
