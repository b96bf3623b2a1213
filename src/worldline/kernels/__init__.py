"""Kernels for CUDA devices, each measured against plain PyTorch, and the choice among backends."""
