"""The embedded pocket world: its numbers, autoencoder, text encoder and weights."""
