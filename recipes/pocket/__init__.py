"""The pocket world: scenes, renderer, training and evaluation of the embedded default model."""
