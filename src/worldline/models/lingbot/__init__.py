"""The LingBot-World diffusion transformer, causal and bidirectional."""
