"""A linear layer with e4m3 weights, one scale per output row, that quantises its input per token.

On CUDA devices of capability 8.9 or more the product is torch's row-wise scaled matmul. Everywhere
else the same eight-bit numbers are multiplied in float32: that path is the oracle of the other, and
what tells the quality of a model without a GPU. Weights are quantised one by one as they arrive
(`Fp8Linear.weight_rows`), so a network is never whole in sixteen bits anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.quant.rows import E4M3, Rows, to_e4m3

NATIVE_CAPABILITY = (8, 9)  # first GPUs whose tensor cores multiply e4m3
ALIGNMENT = 16  # the scaled matmul wants both widths to be multiples of this
# Sums of 14 bits inside the tensor core: far finer than e4m3 itself, and the faster kernel.
FAST_ACCUMULATION = True


class Fp8Linear(nn.Module):
    """`y = x W^T + b` with `W [out, in]` in e4m3; made on the meta device, then filled.

    `dtype` is that of bias and result; `native` takes the scaled matmul, see `is_native`.
    """

    scale: Tensor

    def __init__(
        self, inputs: int, outputs: int, *, bias: bool, dtype: torch.dtype, native: bool
    ) -> None:
        super().__init__()
        self.native = native and inputs % ALIGNMENT == 0 and outputs % ALIGNMENT == 0
        self.out_dtype = dtype
        weight = torch.empty(outputs, inputs, dtype=E4M3, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)
        # Not in the state dict: checkpoints hold the weight alone, the scale is made from it.
        scale = torch.empty(outputs, 1, dtype=torch.float32, device="meta")
        self.register_buffer("scale", scale, persistent=False)
        numbers = torch.empty(outputs, dtype=dtype, device="meta")
        self.bias = nn.Parameter(numbers, requires_grad=False) if bias else None

    @staticmethod
    def weight_rows(weight: Tensor) -> dict[str, Tensor]:
        """What to store in place of a full `weight [out, in]`: tensors by attribute name."""
        values, scale = to_e4m3(weight)
        return {"weight": values, "scale": scale}

    def forward(self, x: Tensor | Rows) -> Tensor:
        """Map `x [..., in]` of any float dtype, or already quantised, to `[..., out]`."""
        rows = x if isinstance(x, Rows) else to_e4m3(x)
        weight = Rows(self.weight, self.scale)
        multiply = scaled_product if self.native else plain_product
        return multiply(rows, weight, self.bias, self.out_dtype)


def shared_rows(layer: nn.Module, x: Tensor | Rows) -> Tensor | Rows:
    """What `layer` and others of its kind take of `x [..., in]`: quantised once for all of them."""
    return to_e4m3(x) if isinstance(layer, Fp8Linear) and isinstance(x, Tensor) else x


def plain_product(x: Rows, weight: Rows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """`x [..., in]` times `weight [out, in]` transposed, in float32: the oracle."""
    product = F.linear(x.values.float(), weight.values.float())  # ... out
    product = product * x.scale * weight.scale.flatten()
    if bias is not None:
        product = product + bias.float()
    return product.to(dtype)


def scaled_product(x: Rows, weight: Rows, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The same on the tensor cores, CUDA only; its result is bfloat16 before the last cast."""
    product = torch._scaled_mm(  # pyright: ignore[reportPrivateImportUsage]
        x.values.flatten(0, -2),
        weight.values.t(),
        scale_a=x.scale.flatten(0, -2),
        scale_b=weight.scale.t(),
        bias=None if bias is None else bias.to(torch.bfloat16),
        out_dtype=torch.bfloat16,
        use_fast_accum=FAST_ACCUMULATION,
    )  # M out
    return product.unflatten(0, x.values.shape[:-1]).to(dtype)


def is_native(device: torch.device) -> bool:
    """Whether `device` multiplies e4m3 itself."""
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) >= NATIVE_CAPABILITY


def quantise_linears(
    module: nn.Module, wanted: Callable[[str], bool], *, dtype: torch.dtype, native: bool
) -> list[str]:
    """Put an empty `Fp8Linear` in place of every linear layer whose name is `wanted`.

    For a module on the meta device, before its weights are read; returns the names.
    """
    found = [n for n, m in module.named_modules() if isinstance(m, nn.Linear) and wanted(n)]
    for name in found:
        path, _, leaf = name.rpartition(".")
        owner, old = module.get_submodule(path), module.get_submodule(name)
        assert isinstance(old, nn.Linear) and old.weight.is_meta, "quantise before loading"
        new = Fp8Linear(
            old.in_features,
            old.out_features,
            bias=old.bias is not None,
            dtype=dtype,
            native=native,
        )
        setattr(owner, leaf, new)
    return found
