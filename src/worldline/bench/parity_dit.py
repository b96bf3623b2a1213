"""Parity groups `dit_base_*` (bidirectional) and `dit_causal_*` (chunks over the ring of K and V).

Causal runs are free-running: every x0 and re-noised latent is our own, only the noise is recorded,
so an error anywhere would grow through the rest of the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from worldline.bench.parity_case import (
    EXACT,
    CaseResult,
    Difference,
    GoldenFile,
    compare,
    judge,
    report_unread,
)
from worldline.bench.parity_networks import load_dit
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.collectives import ALONE, Collectives
from worldline.runtime.inputs import CONTEXT_STEP, CONTEXT_TIMESTEP, time_tables
from worldline.runtime.kv_cache import KVRing, RingParams
from worldline.runtime.parallel.shards import Shards
from worldline.runtime.passes import ChunkInputs, ModelInput, context_pass, denoise_pass
from worldline.runtime.step_cache import StepCache
from worldline.sampling.dmd import renoise, to_x0
from worldline.sampling.schedules import Schedule, official_schedule


def cases(path: Path, directory: Path, group: Collectives = ALONE) -> Iterator[CaseResult]:
    """One row per bidirectional forward, or one per chunk of a causal run; as a rank of `group`."""
    golden, shards = GoldenFile(path), Shards(group)
    if "case" in golden.meta:
        yield from _causal_cases(golden, directory, shards)
    else:
        yield from _base_cases(golden, directory, shards)
    yield from report_unread(golden)


def padded_text(context: Tensor, dit: LingBotDiT) -> Tensor:
    """Text states `[n, C]` followed by zero rows: `[1, text_len, C]`."""
    text = torch.zeros(1, dit.params.text_len, dit.params.text_dim)
    text[0, : context.shape[0]] = context
    return text


# --- bidirectional --------------------------------------------------------------------------------


def _base_cases(golden: GoldenFile, directory: Path, shards: Shards) -> Iterator[CaseResult]:
    kind = golden.config("config").get("control_type") or "cam"
    dit = load_dit(directory / golden.meta.get("weights", f"dit_weights_{kind}.safetensors"))
    for case in golden.config("cases"):
        yield judge(golden.path.name, case, lambda c=case: _forward(golden, dit, c, shards))


def _forward(
    golden: GoldenFile, dit: LingBotDiT, case: str, shards: Shards
) -> Iterator[Difference]:
    x = torch.cat([golden[f"{case}.x"], golden[f"{case}.y"]]).unsqueeze(0)  # 1 36 T h w
    has_camera = f"{case}.cam" in golden
    control = golden[f"{case}.cam"] if has_camera else None
    text = padded_text(golden[f"{case}.context"], dit)
    shard = shards.of(x[0, 0].numel() // 4)
    with _taps(dit) as seen:
        flow = dit(x, golden[f"{case}.t"].reshape(1), text=text, control=control, shard=shard)
    seen = {name: out if name in _WHOLE else shard.gather(out) for name, out in seen.items()}
    yield compare("flow", flow[0], golden[f"{case}.out"])
    for name in golden.names(f"{case}."):
        tap = name.removeprefix(f"{case}.")
        if tap in seen:
            yield compare(tap, *_alike(seen[tap], golden[name]))


def _alike(ours: Tensor, want: Tensor) -> tuple[Tensor, Tensor]:
    """Both taps in one layout: modulations are recorded flat, and padded tokens are left out."""
    if ours.ndim == want.ndim == 3 and want.shape[1] > ours.shape[1]:
        want = want[:, : ours.shape[1]]
    return ours.reshape(want.shape) if ours.numel() == want.numel() else ours, want


_WHOLE = ("time_proj", "text_emb")  # taps without tokens: every rank has all of them


@contextmanager
def _taps(dit: LingBotDiT) -> Iterator[dict[str, Tensor]]:
    """Outputs of the parts that are recorded too, by their recorded name."""
    parts: dict[str, nn.Module] = {
        "time_proj": dit.time_projection,
        "text_emb": dit.text_embedding,
        "cam_patch": dit.patch_embedding_wancamctrl,
    }
    for i, block in enumerate(dit.iter_blocks()):
        parts |= {
            f"block{i}.out": block,
            f"block{i}.self_attn": block.self_attn.o,
            f"block{i}.cross_attn": block.cross_attn.o,
            f"block{i}.ffn": block.ffn[2],
            f"block{i}.cam_scale": block.cam_scale_layer,
            f"block{i}.cam_shift": block.cam_shift_layer,
        }
    seen: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> Any:
        def keep(_module: nn.Module, _args: object, out: Tensor) -> None:
            seen[name] = out

        return module.register_forward_hook(keep)

    handles = [watch(name, module) for name, module in parts.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


# --- causal ---------------------------------------------------------------------------------------


class _Run(NamedTuple):
    """What stays the same over a causal run."""

    golden: GoldenFile
    dit: LingBotDiT
    kv: KVRing
    caches: StepCache
    schedule: Schedule
    text: Tensor
    rows: int
    columns: int
    contents: dict[str, Tensor]  # our cache after each chunk, under the recorded names
    shards: Shards

    def time(self, step: int) -> Any:
        """Time tables of a denoise step, or of the context pass for -1."""
        t = CONTEXT_TIMESTEP if step == CONTEXT_STEP else self.schedule.timesteps[step]
        return time_tables(self.dit, self.caches, step, t)

    def held(self, layer: int, end: int) -> list[Tensor]:
        """Keys and values of a block in the order of time, `[1, K, N, D]`, the heads of all."""
        return [_heads(part, self.shards.group) for part in self.kv.in_time_order(layer, end)]


def _heads(x: Tensor, group: Collectives) -> Tensor:
    """Heads of all ranks: `x [1, K, N/P, D]` -> `[1, K, N, D]`."""
    received = x.new_empty(group.size * x.shape[1], *x.shape[2:])
    group.all_gather(received, x[0].contiguous(), name="parity")
    return torch.cat(received.split(x.shape[1]), dim=1).unsqueeze(0)


def _causal_cases(golden: GoldenFile, directory: Path, shards: Shards) -> Iterator[CaseResult]:
    case, config = golden.config("case"), golden.config("config")
    dit = load_dit(directory / case["weights"])
    run = _open(golden, dit, case, config, shards=shards)
    yield judge(golden.path.name, "schedule and text", lambda: _shared(run))
    start = 0
    for chunk, count in enumerate(case["chunks"]):
        frames = range(start, start + count)
        camera = case.get("use_cam", f"chunk{chunk}.cam" in golden)
        yield judge(
            golden.path.name,
            f"chunk {chunk}",
            lambda c=chunk, f=frames, u=camera: _chunk(run, c, f, use_camera=u),
        )
        start += count
    if any(".kv.layer" in name for name in golden.names("chunk")):
        yield judge(golden.path.name, "cache", lambda: _caches(run))


def _open(
    golden: GoldenFile, dit: LingBotDiT, case: dict[str, Any], config: Any, *, shards: Shards
) -> _Run:
    rows, columns = case["lat_h"] // 2, case["lat_w"] // 2
    runtime = config | case
    params = RingParams(
        layers=dit.params.num_layers,
        heads=shards.heads(dit.params.num_heads),
        head_dim=dit.params.head_dim,
        tokens_per_frame=rows * columns,
        window=runtime["local_attn_size"],
        sink=runtime["sink_size"],
        max_attention_frames=case.get("max_attention_frames"),
    )
    return _Run(
        golden=golden,
        dit=dit,
        kv=KVRing(params, dtype=torch.float32, device="cpu"),
        caches=StepCache(),
        schedule=official_schedule(case["shift"], case["timesteps_index"]),
        text=padded_text(golden["context"], dit),
        rows=rows,
        columns=columns,
        contents={},
        shards=shards,
    )


def _shared(run: _Run) -> Iterator[Difference]:
    golden = run.golden
    yield compare("timesteps", run.schedule.timesteps, golden["timesteps"], EXACT)
    cross = run.dit.cross_kv(run.dit.embed_text(run.text))
    for name in golden.names("cross_kv.layer"):
        layer, which = name.removeprefix("cross_kv.layer").split(".")
        yield compare(name, getattr(cross[int(layer)], which), golden[name])


def _chunk(run: _Run, chunk: int, frames: range, *, use_camera: bool) -> Iterator[Difference]:
    """All passes of one chunk on our own latents."""
    golden, dit = run.golden, run.dit
    with torch.no_grad():
        shard = run.shards.of(len(frames) * run.rows * run.columns)
        camera = dit.embed_camera(golden[f"chunk{chunk}.cam"], shard) if use_camera else None
        inputs = ChunkInputs(
            (len(frames), run.rows, run.columns),
            dit.rope(frames, run.rows, run.columns, tokens=shard.tokens),
            None if camera is None else dit.camera_modulation(camera),
            dit.cross_kv(dit.embed_text(run.text)),
            shard=shard,
        )
    model_input = ModelInput(golden[f"chunk{chunk}.y"].unsqueeze(0))
    run.kv.begin_chunk(frames.start, len(frames))
    x = clean = golden[f"chunk{chunk}.noise"]
    for step, sigma in enumerate(run.schedule.sigma_x0):
        name = f"chunk{chunk}.step{step}"
        x36 = model_input.with_latents(x.unsqueeze(0))
        flow = denoise_pass(dit, x36, time=run.time(step), inputs=inputs, kv=run.kv)[0]
        clean = to_x0(x, flow, sigma)
        yield compare(f"step {step} flow", flow, golden[f"{name}.flow"])
        yield compare(f"step {step} x0", clean, golden[f"{name}.x0"])
        yield from _compare_call(run, chunk, step, frames)
        if step < len(run.schedule.sigma_renoise):
            x = renoise(clean, golden[f"{name}.renoise_eps"], run.schedule.sigma_renoise[step])
            yield compare(f"step {step} renoised", x, golden[f"{name}.renoised"])
    x36, time = model_input.with_latents(clean.unsqueeze(0)), run.time(CONTEXT_STEP)
    # The engine's context pass stops early; a full pass at its timestep gives what is recorded.
    out = denoise_pass(dit, x36, time=time, inputs=inputs, kv=run.kv)[0]
    yield compare("context pass", out, golden[f"chunk{chunk}.context_pass.out"])
    context_pass(dit, x36, time=time, inputs=inputs, kv=run.kv)
    yield from _compare_call(run, chunk, CONTEXT_STEP, frames)
    for name in golden.names(f"chunk{chunk}.kv.layer"):
        layer, which = name.split(".kv.layer")[1].split(".")
        run.contents[name] = run.held(int(layer), frames.stop)["kv".index(which)]


def _compare_call(run: _Run, chunk: int, step: int, frames: range) -> Iterator[Difference]:
    """The recorded cursor after this call: t, first frame, filled and absolute end in tokens."""
    calls = run.golden["calls"]
    row = calls[(calls[:, 0] == chunk) & (calls[:, 1] == step)]
    t = CONTEXT_TIMESTEP if step == CONTEXT_STEP else run.schedule.timesteps[step]
    tokens = run.rows * run.columns
    filled = len(run.kv.present_frames(frames.stop)) * tokens
    ours = [[chunk, step, t, frames.start, filled, frames.stop * tokens]]
    yield compare(f"call {chunk}/{step}", ours, row, EXACT)


def _caches(run: _Run) -> Iterator[Difference]:
    """The recorded cache content after every chunk against ours.

    Some recordings hold views of the live buffer: once frames were evicted, all their entries show
    the prefix of the *final* content. Such an entry is recognised by being exactly that, and is
    compared with our final content.
    """
    last = {_layer_of(name): name for name in run.contents}  # in the order of the chunks
    for name, after_chunk in run.contents.items():
        final = last[_layer_of(name)]
        want, newest = run.golden[name], run.golden[final]
        length = want.shape[1]
        is_view = torch.equal(want, newest[:, :length])
        yield compare(name, run.contents[final][:, :length] if is_view else after_chunk, want)


def _layer_of(name: str) -> str:
    return name.split(".", 1)[1]
