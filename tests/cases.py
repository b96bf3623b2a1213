"""The end-to-end and benchmark cases, as data: what is run on which devices, and what must hold.

A case is a measurement of `worldline bench`, which `tests/bench/test_cases.py` runs, or (`test=`) a
test that pytest has anyway. CI reads this file's syntax tree without importing it
(`tools/ci/cases.py`); `tools/ci/case_reader.py` says what it can read, `tools/ci/baseline.json` how
many seconds a case takes. Only the standard library is imported here.

Speed is judged on the hardware that a bound names and nowhere else.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

SIZE_480P = 832, 480


@dataclass(frozen=True)
class Bound:
    """What a figure must keep: `figure` leads through the printed JSON, keys joined by `/`.

    True counts as 1. `on`: only on a GPU whose name contains this.
    """

    figure: str
    _: KW_ONLY
    at_least: float | None = None
    at_most: float | None = None
    on: str = ""


@dataclass(frozen=True)
class Case:
    """One case. `devices` are GPUs; exactly one of `bench` and `test` is set.

    `bench` is the measurement (chunk or soak) and `options` its further options. `model` and `size`
    in pixels are what is run; without a size the model's own, without a model those of recordings.
    """

    id: str
    _: KW_ONLY
    model: str = ""
    devices: int = 0
    size: tuple[int, int] | None = None
    test: str = ""
    bench: str = ""
    options: tuple[str, ...] = ()
    bounds: tuple[Bound, ...] = ()
    timeout_s: int = 600

    def arguments(self) -> list[str]:
        """The command line of `worldline` that prints this case's figures as JSON."""
        assert self.bench, f"{self.id} is a test of pytest's own"
        device = ["--device", "cuda" if self.devices else "cpu"]
        size = ["--size", "x".join(map(str, self.size))] if self.size else []
        return ["bench", self.bench, "--model", self.model, *device, *size, *self.options, "--json"]


def fast_14b() -> Case:
    """The workload whose figures everybody publishes: chunk 3, window 18, full VAE."""
    return Case(
        "fast-14b",
        model="lingbot-world-fast",
        devices=1,
        size=SIZE_480P,
        bench="chunk",
        options=("--random-weights", "--dtype=bfloat16", "--mode=fast", "--chunks=30"),
        bounds=(
            Bound("fps", at_least=6.5, on="H200"),
            Bound("chunk_ms_p50", at_most=1850, on="H200"),
        ),
        timeout_s=1800,
    )


# What pytest runs anyway, from end to end: recordings, films, the served world, the page.
PATHS: list[Case] = [
    Case(
        "parity-recordings",
        test="tests/parity/test_parity.py::test_the_recordings_of_this_repository",
    ),
    Case("parity-films", test="tests/parity/test_rollouts.py"),
    Case("pocket-film", test="tests/cli/test_generate.py", model="pocket"),
    Case("pocket-live", test="tests/server/test_pocket_live.py", model="pocket", size=(160, 96)),
    Case("pocket-page", test="tests/e2e/test_browser.py", model="pocket", size=(160, 96)),
    Case("pocket-commands", test="tests/recipes/test_pocket_weights.py", model="pocket"),
]

CPU = [
    *PATHS,
    Case(
        "pocket-savings",
        model="pocket",
        size=(160, 96),
        bench="chunk",
        options=("--ablate=camera", "--chunks=2", "--window=4", "--steps=2"),
        bounds=(
            Bound("ablation/none_of_the_savings/max_abs", at_most=1e-5),
            Bound("work/chunk/gflop", at_most=4.2),
            Bound("peak_memory_mb", at_most=720),
        ),
    ),
    Case(
        "pocket-soak",
        model="pocket",
        size=(160, 96),
        bench="soak",
        options=("--chunks=24",),
        bounds=(Bound("counts_held", at_least=1), Bound("warmup_chunks", at_most=20)),
    ),
]

# What pytest skips without a card: the recordings on it, kernels, eight bits, offloaded blocks.
CUDA_TESTS: list[Case] = [
    Case(
        "cuda-vae", devices=1, test="tests/models/test_wan_vae.py::test_cuda_equals_the_reference"
    ),
    Case("cuda-umt5", devices=1, test="tests/models/test_umt5.py::test_cuda_equals_the_reference"),
    Case("cuda-fp8", devices=1, test="tests/quant/test_linear.py"),
    Case("cuda-kernels", devices=1, test="tests/kernels/test_on_cuda.py"),
    Case("cuda-offload", devices=1, test="tests/runtime/test_offload.py"),
    Case("cuda-sync", devices=1, test="tests/runtime/test_device_sync.py"),
    Case("cuda-lane", devices=1, test="tests/runtime/test_lane.py"),
    Case("cuda-one-shot", devices=1, test="tests/runtime/parallel/test_one_shot.py"),
    Case("cuda-graphs", devices=1, test="tests/runtime/test_graphs.py"),
]

SPEED: list[Case] = [
    Case(
        "fast-14b-exact",
        model="lingbot-world-fast",
        devices=1,
        size=SIZE_480P,
        bench="chunk",
        options=("--random-weights", "--dtype=bfloat16", "--mode=exact", "--chunks=30"),
        bounds=(Bound("fps", at_least=4.9, on="H200"),),
        timeout_s=1800,
    ),
    Case(
        "fast-14b-8bit",
        model="lingbot-world-fast",
        devices=1,
        size=SIZE_480P,
        bench="chunk",
        options=("--random-weights", "--mode=8bit", "--chunks=30"),
        bounds=(Bound("fps", at_least=8.5, on="H200"),),
        timeout_s=1800,
    ),
    Case(
        "v2-1.3b",
        model="lingbot-world-v2-1.3b",
        devices=1,
        size=SIZE_480P,
        bench="chunk",
        options=("--random-weights", "--dtype=bfloat16", "--mode=fast", "--chunks=30"),
        bounds=(Bound("fps", at_least=28, on="H200"),),
    ),
    Case(
        "pocket-gpu",
        model="pocket",
        devices=1,
        bench="chunk",
        options=("--mode=fast", "--chunks=100"),
        bounds=(Bound("fps", at_least=24, on="H200"),),
    ),
]
SPEED.append(fast_14b())

ONE_GPU = CUDA_TESTS + SPEED

# Nothing runs on several devices yet.
TWO_GPU: list[Case] = []
FOUR_GPU: list[Case] = []

SUITES = {"cpu": CPU, "1-gpu": ONE_GPU, "2-gpu": TWO_GPU, "4-gpu": FOUR_GPU}
