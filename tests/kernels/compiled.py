"""Compiles every kernel for a GPU that need not be there: `python -m tests.kernels.compiled 90`.

Prints one JSON object: for each kernel, bytes spilled from registers and its widest memory access.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

STREAM, MATMUL, EIGHT, INDEX, COUNT, REAL = "*fp32", "*bf16", "*fp8e4nv", "*i64", "i32", "fp32"
# Sizes of the 14B model: its width, the inner one, and its heads.
ROW: dict[str, Any] = {"WIDTH": 5120, "BLOCK": 8192}
INNER: dict[str, Any] = {"WIDTH": 13824, "BLOCK": 16384}
HEADS: dict[str, Any] = {"HEADS": 40, "DIM": 128, "HEADS_BLOCK": 64, "DIM_BLOCK": 128}
RING: dict[str, Any] = {"ROPE": True, "SLOTS": True}
# What parameters are in a model whose matmuls are bfloat16; all others are counts.
TYPES = {
    STREAM: "x shift scale gate cos sin out log_sum",
    MATMUL: "y camera_scale camera_shift weight bias normed q k v weight_q weight_k q_out k_out "
    "v_out mixed",
    INDEX: "slots",
    EIGHT: "values",
    REAL: "eps peak least log_times",
}


class Compiled(NamedTuple):
    """What a kernel became: bytes spilled, and the widest access to memory in bits."""

    spilled: int
    widest: int


def compile_kernel(
    kernel: Any, constants: dict[str, Any], capability: int, other: dict[str, str]
) -> Compiled:
    """Compile one kernel; `other` are the types that its parameters do not share with the rest."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: kind for kind, names in TYPES.items() for name in names.split()}
    types |= other | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, COUNT) for name in kernel.arg_names}
    # Tensors begin at multiples of 16 bytes, and distances are multiples of 16 values.
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name.endswith("stride")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", capability, 32)
    text: str = triton.compile(source, target=target, options={"num_warps": 16}).asm["ptx"]
    widths = [
        int(lanes or 1) * int(bits)
        for lanes, bits in re.findall(r"(?:ld|st)\.global\S*?(?:\.v(\d))?\.b(\d+)", text)
    ]
    return Compiled(_spilled(text, capability), max(widths))


def _spilled(text: str, capability: int) -> int:
    """Bytes that the assembler could not keep in registers."""
    from triton import knobs

    assembler = knobs.nvidia.ptxas.path
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(text)
        command = [assembler, f"-arch=sm_{capability}{'a' if capability >= 90 else ''}", "-v"]
        done = subprocess.run(
            [*command, "-o", str(Path(folder, "kernel.cubin")), str(source)],
            capture_output=True,
            text=True,
            check=True,
        )
    return sum(int(count) for count in re.findall(r"(\d+) bytes spill", done.stderr))


def compile_all(capability: int) -> dict[str, Compiled]:
    """Every kernel of the package, by name."""
    from worldline.kernels import heads, quantise, stream

    kinds: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
        (stream.norm_modulate_kernel, ROW, {"out": MATMUL}),
        (stream.after_text_kernel, ROW, {}),
        (stream.add_gated_kernel, ROW, {}),
        (stream.after_attention_kernel, ROW | {"CAMERA": True}, {}),
        (heads.heads_kernel, HEADS | RING | {"FIRST": heads.QUERY}, {}),
        (heads.mix_key_kernel, HEADS, {"out": MATMUL, "scale": REAL}),
    ]
    if capability >= 89:
        kinds.append((quantise.e4m3_kernel, INNER, {"x": MATMUL}))
    return {
        kernel.fn.__name__: compile_kernel(kernel, constants, capability, other)
        for kernel, constants, other in kinds
    }


if __name__ == "__main__":
    found = compile_all(int(sys.argv[1]))
    print(json.dumps({name: compiled._asdict() for name, compiled in found.items()}))
