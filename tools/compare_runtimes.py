"""The pocket world's two networks on a CPU under several runtimes: times, and agreement.

    pip install onnx onnxruntime onnxscript openvino      # into an environment of your own
    python tools/compare_runtimes.py --threads 1

One denoise pass at the full window and one decode, with the shipped weights, by torch as it is, by
torch with packed weights as `worldline` runs it, compiled, and by ONNX Runtime and OpenVINO. All
take turns, round by round, so that whatever else runs on the machine disturbs all alike. What is
not installed is left out. Prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from worldline.bench.machine import describe_machine
from worldline.models.lingbot.blocks import CameraModulation, TextKV
from worldline.models.lingbot.dit import LingBotDiT, TimeTables
from worldline.models.pocket.vae import PocketVAE
from worldline.ops.attention import attention
from worldline.ops.packed import pack_linears
from worldline.ops.rope import RopeTable
from worldline.runtime.loader import load_components

GRID, WINDOW = (6, 10), 8  # tokens of a latent frame, latent frames attended
HALF = torch.bfloat16
Run = Callable[[], Tensor]
Inputs = tuple[Tensor, ...]


class History:
    """The keys and values of the frames before, as arguments instead of a ring."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self._keys, self._values = keys, values

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend to what was and what is."""
        keys, values = (
            torch.cat(pair, 1) for pair in ((self._keys[layer], k), (self._values[layer], v))
        )
        return attention(q, keys, values)


class Pass(nn.Module):
    """One denoise pass as a function of tensors only."""

    def __init__(self, dit: LingBotDiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(self, *inputs: Tensor) -> Tensor:
        """See `pass_inputs`."""
        x, keys, values, cos, sin, scale, shift, text_k, text_v, blocks, head = inputs
        count = range(self.dit.params.num_layers)
        time = TimeTables(tuple(blocks[i] for i in count), head)
        tokens = self.dit.run_blocks(
            self.dit.patchify(x),
            time=time,
            rope=RopeTable(cos, sin),
            camera=[CameraModulation(scale[i], shift[i]) for i in count],
            cross=[TextKV(text_k[i], text_v[i]) for i in count],
            attend=History(keys, values),
        )
        return self.dit.project(tokens, time, (1, *GRID))


class Decode(nn.Module):
    """One decode as a function of tensors only."""

    def __init__(self, vae: PocketVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, z: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Frames and the new history of latents `z [1, 1, 16, h, w]`."""
        frames, history = self.vae.decode_folded(z, past)
        return (frames, *history)


class Subject(NamedTuple):
    """A network with its inputs; `half` are the inputs that are in half precision with it."""

    name: str
    network: nn.Module
    inputs: Inputs
    half: Sequence[int]


def subjects() -> list[Subject]:
    """The pocket world's transformer and decoder, one latent frame of 160x96 pixels."""
    parts = load_components("pocket", device="cpu")
    assert isinstance(parts.vae, PocketVAE), "the pocket world has its own autoencoder"
    dit, vae = parts.dit, parts.vae
    z = torch.randn(1, 1, 16, 2 * GRID[0], 2 * GRID[1])
    _, past = vae.decode_folded(z, None)
    decode = (z, *(p.contiguous() for p in past))
    return [
        Subject("denoise pass", Pass(dit), pass_inputs(dit), (1, 2, 5, 6, 7, 8)),
        Subject("decode", Decode(vae), decode, range(len(decode))),
    ]


def pass_inputs(dit: LingBotDiT) -> Inputs:
    """What a pass reads: noisy input, history, RoPE, camera, text and time of all blocks."""
    p, tokens = dit.params, GRID[0] * GRID[1]
    layers, heads, size = p.num_layers, p.num_heads, p.head_dim
    old = (layers, 1, (WINDOW - 1) * tokens, heads, size)
    angles = torch.randn(tokens, size // 2)
    camera = (layers, 1, tokens, p.dim)
    text = (layers, 1, p.text_len, heads, size)
    return (
        torch.randn(1, p.in_dim, 1, 2 * GRID[0], 2 * GRID[1]),
        *(torch.randn(old) for _ in range(2)),
        angles.cos(),
        angles.sin(),
        *(torch.randn(camera) / 10 for _ in range(2)),
        *(torch.randn(text) for _ in range(2)),
        torch.randn(layers, 1, 1, 6, p.dim),
        torch.randn(1, 1, 2, p.dim),
    )


def torch_runs(subject: Subject) -> Iterator[tuple[str, Run]]:
    """By torch, operator by operator."""
    yield "torch float32", _calls(subject.network, subject.inputs)
    packed = copy.deepcopy(subject.network)
    if pack_linears(packed):
        yield "torch float32, packed", _calls(packed, subject.inputs)
    half, inputs = _in_half(subject)
    yield "torch bfloat16", _calls(half, inputs)
    packed = copy.deepcopy(half)
    if pack_linears(packed):
        yield "torch bfloat16, packed", _calls(packed, inputs)


def compiled_runs(subject: Subject) -> Iterator[tuple[str, Run]]:
    """By torch's compiler with frozen weights, both precisions."""
    config: Any = importlib.import_module("torch._inductor.config")
    config.freezing = True
    for name, (network, inputs) in (
        ("float32", (subject.network, subject.inputs)),
        ("bfloat16", _in_half(subject)),
    ):
        run = _calls(torch.compile(network, dynamic=False), inputs)
        start = time.perf_counter()
        run()
        spent = time.perf_counter() - start
        yield f"torch.compile {name} (compiled in {spent:.0f} s)", run


def onnx_runs(subject: Subject, path: Path, threads: int) -> Iterator[tuple[str, Run]]:
    """By ONNX Runtime and OpenVINO, from one ONNX file."""
    if not _installed("onnx", "onnxscript"):
        return
    torch.onnx.export(subject.network, subject.inputs, path, dynamo=True, verbose=False)
    if _installed("onnxruntime"):
        runtime = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        feed = {n: t.contiguous().numpy() for n, t in zip(names, subject.inputs, strict=True)}
        yield "ONNX Runtime float32", lambda: torch.from_numpy(session.run(None, feed)[0])
    if _installed("openvino"):
        openvino = importlib.import_module("openvino")
        core = openvino.Core()
        arrays = [t.contiguous().numpy() for t in subject.inputs]
        for name, hint in (("float32", "f32"), ("bfloat16", "bf16")):
            settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
            request = core.compile_model(
                core.read_model(path), "CPU", settings
            ).create_infer_request()
            yield f"OpenVINO {name}", _infers(request, arrays)


def _infers(request: Any, arrays: list[Any]) -> Run:
    return lambda: torch.from_numpy(request.infer(arrays, share_inputs=True)[0])


def _calls(network: Callable[..., Any], inputs: Inputs) -> Run:
    def run() -> Tensor:
        result = network(*inputs)
        return result if isinstance(result, Tensor) else result[0]

    return run


def _in_half(subject: Subject) -> tuple[nn.Module, Inputs]:
    """The network in bfloat16 as the engine keeps it, and its inputs."""
    network = copy.deepcopy(subject.network)
    for name, parameter in (*network.named_parameters(), *network.named_buffers()):
        own = name.removeprefix("dit.")
        kept = LingBotDiT.storage_dtype(own, HALF) if own != name else HALF
        parameter.data = parameter.data.to(kept)
    inputs = [t.to(HALF) if i in subject.half else t for i, t in enumerate(subject.inputs)]
    return network, tuple(inputs)


def _installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


def measure(runs: dict[str, Run], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run in every round; they take turns."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            spent[name].append((time.perf_counter() - start) * 1000)
    return spent


def rows(subject: Subject, threads: int, rounds: int, *, compiler: bool) -> Iterator[str]:
    """Lines of the table for one network."""
    with tempfile.TemporaryDirectory() as folder:
        kinds = [*torch_runs(subject), *onnx_runs(subject, Path(folder) / "network.onnx", threads)]
        runs = dict(kinds) | (dict(compiled_runs(subject)) if compiler else {})
        reference = next(iter(runs.values()))()
        largest = float(reference.abs().max())
        apart = {
            name: float((run().float() - reference).abs().max()) / largest
            for name, run in runs.items()
        }
        for name, spent in measure(runs, rounds).items():
            settled = sorted(spent[rounds // 5 :])
            median, best = statistics.median(settled), settled[len(settled) // 10]
            yield f"| {subject.name} | {name} | {median:.2f} | {best:.2f} | {apart[name]:.1e} |"


@torch.no_grad()
def main() -> int:
    """Print the table; returns the exit code."""
    assert __doc__ is not None, "docstrings are kept"
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    where = describe_machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(
        f"{where.processor}, {where.cores} cores, {options.threads} threads, torch {where.torch}, "
        f"commit {where.commit}{load}\n"
    )
    print("| network | runtime | median ms | fastest tenth ms | largest difference |")
    print("| --- | --- | --- | --- | --- |")
    for subject in subjects():
        for line in rows(subject, options.threads, options.rounds, compiler=not options.no_compile):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
