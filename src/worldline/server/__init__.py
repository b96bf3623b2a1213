"""The live server: sockets, seats and pacing; never imports torch."""
