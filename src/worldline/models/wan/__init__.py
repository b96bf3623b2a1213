"""The Wan 2.1 base: video autoencoder and UMT5 text encoder."""
