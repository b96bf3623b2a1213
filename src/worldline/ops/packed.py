"""Linear layers whose weights lie packed as oneDNN's matrix kernels read them; CPU, inference only.

Torch sends float32 products to MKL, which packs the weight anew in every call and on processors of
other makers than its own leaves half of each vector unused. oneDNN, which is inside every x86 build
of torch, does neither: the pocket world's layers take about half the time (`docs/benchmarks.md`).
Sums are formed in another order, so results differ from `nn.Linear` in the last bits; for equal
input they are always equal.
"""

from __future__ import annotations

import platform

import torch
from torch import Tensor, nn

from worldline.ops.cast import cast

X86 = ("x86_64", "AMD64")
USUAL_ROWS = 64  # tokens of a call, about: a hint for how to lay the weights, others work too


class PackedLinear(nn.Linear):
    """A linear layer that shares its parameters with another one and keeps a packed copy.

    The copy is made when it is first needed and follows a weight that is written to or exchanged.
    Input is cast to the weights' dtype. Gradients take the ordinary way. Small layers are called
    thousands of times a second: hooks are not looked for.
    """

    _packed: Tensor | None
    _source: tuple[int, int] | None = None

    def __init__(self, layer: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight
        self.register_parameter("bias", layer.bias)
        self.register_buffer("_packed", None, persistent=False)

    def __call__(self, input: Tensor) -> Tensor:
        """Map `input [..., in]` to `[..., out]`."""
        return self.forward(input)

    def forward(self, input: Tensor) -> Tensor:
        """See `__call__`."""
        if torch.is_grad_enabled():
            return super().forward(cast(input, self.weight.dtype))
        return self._product(input, "none", "")

    def pack_again(self) -> None:
        """The weight was written to through another view of its memory."""
        self._source = None

    def gelu(self, input: Tensor) -> Tensor:
        """GELU (its tanh form) of what the layer maps `input` to; has no gradient."""
        return self._product(input, "gelu", "tanh")

    def _product(self, input: Tensor, after: str, form: str) -> Tensor:
        # Attribute access on a module looks in three places; this is where they are.
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None, "every linear layer has a weight"
        if self._source != (now := _identity(weight)):
            pack = torch.ops.mkldnn._reorder_linear_weight
            self._packed, self._source = pack(weight.detach(), USUAL_ROWS), now
        x, packed = cast(input, weight.dtype), self._buffers["_packed"]
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, after, [], form)


def can_pack(dtype: torch.dtype) -> bool:
    """Whether this machine's torch packs weights of `dtype`."""
    if platform.machine() not in X86 or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def pack_linears(module: nn.Module) -> int:
    """Put a `PackedLinear` in place of every linear layer inside that can be; returns how many."""
    found = [(name, m) for name, m in module.named_modules() if type(m) is nn.Linear]
    chosen = [(name, m) for name, m in found if can_pack(m.weight.dtype)]
    for name, layer in chosen:
        path, _, leaf = name.rpartition(".")
        setattr(module.get_submodule(path), leaf, PackedLinear(layer))
    return len(chosen)


def _identity(weight: Tensor) -> tuple[int, int]:
    """Changes whenever the weight's numbers may have."""
    return weight.data_ptr(), weight._version
