"""Between host and device without making the host wait.

Everything a chunk sends to a GPU goes through pinned memory; torch keeps such memory for the next
chunk and knows when a copy out of it has ended. On a CPU nothing is copied.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pin(host: Tensor) -> Tensor:
    """A copy of `host` that a GPU can read by itself."""
    return host.pin_memory()


def upload(host: Tensor, device: torch.device) -> Tensor:
    """`host` on `device`; the tensor itself where that is the CPU."""
    return host if device.type == "cpu" else pin(host).to(device, non_blocking=True)


def download(tensor: Tensor) -> Tensor:
    """A copy on the host, which does not wait for it: see `settled`."""
    if tensor.device.type == "cpu":
        return tensor.clone(memory_format=torch.contiguous_format)
    # The stream that made it must not use its memory again while we copy.
    if tensor.is_cuda:
        tensor.record_stream(torch.cuda.current_stream(tensor.device))
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return host.copy_(tensor, non_blocking=True)


def settled(device: torch.device) -> None:
    """Return once all that was downloaded in this stream is there."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def upload_into(target: Tensor, host: Tensor) -> None:
    """Overwrite `target` by `host`, of equal shape and dtype."""
    source = host if target.device.type == "cpu" else pin(host)
    target.copy_(source, non_blocking=True)
