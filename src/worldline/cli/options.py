"""The command line as frozen values: one class per command, one field per option.

The docstrings are the help texts. What an option means when it is not given is decided where it is
used: None leaves a number to the environment, the preset or the checkpoint, in that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg, subcommand

# The help of these says itself what happens without them; "(default: None)" would not.
Whole = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Real = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]
Seconds = Annotated[float | None, arg(metavar="SECONDS", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
File = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Size = Annotated[str | None, arg(metavar="WxH", help_behavior_hint="")]
Type = Annotated[Literal["float32", "bfloat16"] | None, arg(metavar="TYPE", help_behavior_hint="")]
Mode = Annotated[
    Literal["exact", "fast", "8bit"] | None, arg(metavar="MODE", help_behavior_hint="")
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What to load, and how."""

    model: Annotated[str, arg(metavar="NAME|DIR|HUB-ID")] = "pocket"
    """A preset (see `worldline models`), a local folder, or a hub repository."""
    device: Text = None
    """auto, cpu, cuda or cuda:N; default: auto, or WORLDLINE_DEVICE."""
    dtype: Type = None
    """float32 or bfloat16; default: the preset's own."""
    mode: Mode = None
    """exact (same input, same bits), fast, or 8bit; default: exact, or WORLDLINE_MODE."""
    threads: Whole = None
    """CPU threads; default: 1 in exact mode, measured in fast mode, or WORLDLINE_THREADS."""
    camera_cache: Literal["auto", "off"] = "auto"
    """off recomputes the camera modulation of every pass, when memory is short."""
    kernels: Literal["auto", "torch", "triton"] = "auto"
    """Norms, gates and RoPE; auto: torch in exact mode, else triton on CUDA devices."""
    kv: Literal["full", "8bit"] = "full"
    """8bit halves the memory that each session's keys and values take."""
    decoder: Annotated[str, arg(metavar="full|tiny|FILE")] = "full"
    """tiny decodes with taew2_1 from the model's folder, or with that file: quick and softer."""
    offload: Literal["off", "blocks"] = "off"
    """blocks keeps the transformer's blocks in host memory, for cards that cannot hold them."""
    resident_blocks: Annotated[int, arg(metavar="N")] = 2
    """With --offload blocks: how many are on the device at a time."""
    text_encoder: Literal["device", "cpu", "swap"] = "device"
    """cpu keeps it there; swap brings it to the device for each new prompt and frees it again."""
    compile: Literal["off", "regional"] = "off"
    """regional compiles what lies between the matmuls; slow once, then kept on disk."""
    graphs: Literal["off", "on"] = "off"
    """on records the passes of a GPU once and replays them."""
    recache: bool = False
    """Make the remembered past anew when the prompt changes."""
    lossy: Annotated[tuple[str, ...], arg(metavar="LEVER")] = ()
    """Cheaper and different: last_step_kv, still_window=N, sink_distance=N; docs/benchmarks.md."""
    first_chunks_mb: Annotated[int, arg(metavar="N")] = 1024
    """Host memory for first chunks of equal starts, which then open at once; 0: none."""
    timeline_mb: Annotated[int, arg(metavar="N")] = 256
    """Host memory for what sessions were, so that they can go back at once; 0: none."""
    lora: Annotated[tuple[str, ...], arg(metavar="[NAME=]FILE[@SCALE]")] = ()
    """Adapters (LoRA, .safetensors) to wear; docs/lora.md."""
    random_weights: bool = False
    """Build the preset with random weights, without any files: for measurements."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """Run-time numbers that win over the preset."""

    size: Size = None
    """Size in pixels, multiples of 16, for example 832x480; default: the preset's nearest."""
    chunk: Whole = None
    """Latent frames per chunk; one is 4 pixel frames."""
    window: Whole = None
    """Latent frames kept for attention; -1 keeps everything."""
    sink: Whole = None
    """First latent frames that are never dropped."""
    shift: Real = None
    """Shift of the noise schedule."""
    steps: Whole = None
    """Denoise steps per chunk."""


@dataclass(frozen=True, kw_only=True)
class Serve:
    """Serve a model: WebSocket, HTTP and the page."""

    host: Text = None
    """Address to listen on; default: 127.0.0.1, reachable from this machine only."""
    port: Whole = None
    """TCP port; default: 30000, or the next free one."""
    seats: Whole = None
    """Visitors at the same time; default: 2."""
    seat_wait: Seconds = None
    """How long a visitor waits for a seat before being refused; default: 15."""
    init_timeout: Seconds = None
    """How long a new connection may take to say what it wants; default: 30."""
    warmup_wait: Seconds = None
    """How long a visitor who came before the warm-up ended is kept waiting; default: 120."""
    config: File = None
    """A TOML file of settings (docs/operations.md); options given here win over it."""
    api_keys: File = None
    """Keys, name:secret[:admin] per line; also WORLDLINE_API_KEYS. Needed beyond loopback."""
    jwt_secret: File = None
    """What signed tokens (HS256) are checked with; also WORLDLINE_JWT_SECRET."""
    allow_origin: Annotated[tuple[str, ...], arg(metavar="ORIGIN")] = ()
    """Pages from elsewhere that may use the server, for example https://example.org."""
    tls: Annotated[str | None, arg(metavar="self-signed|CERT,KEY", help_behavior_hint="")] = None
    """Serve https and wss: a phone on your network needs it for the full picture."""
    admin_port: Whole = None
    """Serve metrics, traces and worlds on a port of their own, and not on the main one."""
    admin_host: Text = None
    """Address of that port; default: 127.0.0.1."""
    films: Text = None
    """A folder for films that are made in the background (/v1/videos); default: none are."""
    devices: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="")] = None
    """Several devices: 0,1,2,3 are GPUs; also cpu,cpu. Without --sp each serves by itself."""
    sp: Whole = None
    """Ranks that share out every chunk, each on a device of its own (docs/devices.md)."""
    replicas: Whole = None
    """Copies of the model that serve side by side."""
    ring: Annotated[int, arg(metavar="N")] = 1
    """Degree of ring attention; more than 1 is not supported."""
    vae: Literal["shared", "own"] = "shared"
    """own puts the autoencoder on a device of its own, the last one; shared cuts it as the rest."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class Play(Serve):
    """Serve a model and open it in the browser, or print its address."""

    world: Annotated[Positional[Path | None], arg(metavar="WORLD.wl", help_behavior_hint="")] = None
    """A saved walk to walk into: it is walked again until you take the keys."""
    no_browser: bool = False
    """Only print the address; also WORLDLINE_BROWSER=false."""


@dataclass(frozen=True, kw_only=True)
class Generate:
    """Generate a film from a picture, a prompt and a camera path."""

    image: Annotated[Path, arg(metavar="FILE")]
    """Start picture."""
    prompt: Annotated[str, arg(metavar="TEXT")]
    """Description of the place."""
    actions: Text = None
    """Keys per pixel frame, for example "w-20,jw-10,none-5"; w a s d walk, i j k l look."""
    poses: File = None
    """Camera path: a .npy file of camera-to-world poses [N, 4, 4], one per pixel frame."""
    intrinsics: File = None
    """A .npy file [N, 4] of fx, fy, cx, cy for an 832x480 picture; goes with --poses."""
    chunks: Whole = None
    """Chunks to generate; default: as long as the actions or the path."""
    seed: Annotated[int, arg(metavar="N")] = 42
    """Seed of the noise."""
    out: Annotated[str, arg(metavar="FILE|DIR")] = "film.mp4"
    """An .mp4 film (needs the extra "video"), or a folder for numbered pictures."""
    record_decoder: Literal["same", "full"] = "same"
    """full decodes the film at the end with the full decoder, whatever --decoder was shown with."""
    save: File = None
    """Also save the walk as a world file (.wl), from which it can be made again or walked on."""
    negative_prompt: Text = None
    """Guided models: what to lead away from; default: the model's own."""
    guidance: Real = None
    """Guided models: how strongly the prompt leads, 1 is not at all; default: the model's own."""
    solver: Annotated[
        Literal["unipc", "dpm++"] | None, arg(metavar="NAME", help_behavior_hint="")
    ] = None
    """Guided models: unipc or dpm++; default: unipc."""
    branches: Literal["auto", "batched", "sequence"] = "auto"
    """Guided models: both branches in one batch, or one by one; auto: as memory allows."""
    guidance_device: Text = None
    """Guided models: compute the second branch on this device, at the same time."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()
    session: SessionOptions = SessionOptions()


@dataclass(frozen=True, kw_only=True)
class BenchChunk:
    """Time the chunks of one session once its window is full."""

    chunks: Annotated[int, arg(metavar="N")] = 30
    """Chunks to measure after the warm-up."""
    ablate: Annotated[str | None, arg(metavar="NAME|all", help_behavior_hint="")] = None
    """Also measure with one saving of the engine switched off, or with each in turn."""
    picture: File = None
    """Also draw the result, as a PNG file."""
    json: bool = False
    """Print the result as JSON."""
    markdown: bool = False
    """Print the result as a table for docs/benchmarks.md."""
    load: ModelOptions = ModelOptions()
    session: SessionOptions = SessionOptions()


@dataclass(frozen=True, kw_only=True)
class BenchSoak:
    """Generate very many chunks in one session: do times, memory and counts stay?"""

    chunks: Annotated[int, arg(metavar="N")] = 1000
    """Chunks to generate, warm-up included."""
    picture: File = None
    """Also draw the result, as a PNG file."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()
    session: SessionOptions = SessionOptions()


@dataclass(frozen=True, kw_only=True)
class BenchQuality:
    """Judge what a cheaper mode or cache does to the picture, against exact at the same dtype."""

    walks: Annotated[int, arg(metavar="N")] = 4
    """Walks, each from another start picture of the gallery."""
    chunks: Annotated[int, arg(metavar="N")] = 48
    """Chunks per walk."""
    json: bool = False
    """Print the result as JSON."""
    markdown: bool = False
    """Print the result as a table for docs/benchmarks.md."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class BenchStart:
    """Time `worldline play` from the command to a visitor's first frame, part by part."""

    runs: Annotated[int, arg(metavar="N")] = 3
    """How often to start; the first run and the others are told apart."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class BenchLatency:
    """Walk the page with a real browser: from the hand to the photon, part by part."""

    url: Text = None
    """A server that runs already; default: one of its own, with the model below."""
    seconds: Annotated[float, arg(metavar="SECONDS")] = 60.0
    """How long to press keys."""
    picture: File = None
    """Also draw the result, as a PNG file."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class BenchServed:
    """Walk several worlds of one server at once: the rate of each, fairness, input to frame."""

    worlds: Annotated[int, arg(metavar="N")] = 2
    """Worlds at the same time."""
    url: Text = None
    """A server that runs already, its key in WORLDLINE_TOKEN; default: one of its own."""
    seconds: Annotated[float, arg(metavar="SECONDS")] = 60.0
    """How long to walk, after the first chunks."""
    format: Literal["h264", "jpeg", "webp", "raw"] | None = None
    """How pictures travel; default: the server's best that can be decoded here."""
    greedy: bool = False
    """Ask for frames as fast as they can be made, instead of at the film's rate."""
    picture: File = None
    """Also draw the result, as a PNG file."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class BenchText:
    """Time the encoding of the negative prompt of guided requests, cold and cached."""

    requests: Annotated[int, arg(metavar="N")] = 10
    """Requests of each kind."""
    prompt: Text = None
    """Another negative prompt than the usual one."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class BenchSnapshots:
    """Bytes and times of snapshots, branches, rewinding and parking, and whether bits stay."""

    chunks: Annotated[int, arg(metavar="N")] = 0
    """Chunks to walk first; 0: three windows."""
    json: bool = False
    """Print the result as JSON."""
    load: ModelOptions = ModelOptions()


@dataclass(frozen=True, kw_only=True)
class BenchParallel:
    """Walk one world on several ranks: are they equal to one, and send what the formula says?"""

    ranks: Annotated[str, arg(metavar="N,N...|none")] = "2,3,4"
    """Numbers of ranks, each of which must divide the heads; none: only the estimate."""
    chunks: Annotated[int, arg(metavar="N")] = 4
    """Chunks to count and to time, after the window has rolled over."""
    model: Text = None
    """A preset, folder or hub repository; default: a small world of twelve heads, on the CPU."""
    random_weights: bool = False
    """Build the preset with random weights, without any files."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cuda: a GPU for each rank; auto: that, where a model is named and there are enough."""
    dtype: Type = None
    """float32 or bfloat16; default: the preset's own."""
    mode: Mode = None
    """exact, fast or 8bit; default: exact."""
    size: Size = None
    """Size in pixels; default: the preset's own."""
    chunk: Whole = None
    """Latent frames per chunk."""
    estimate: Annotated[str, arg(metavar="PRESET|off")] = "lingbot-world-v2-14b"
    """Also estimate that preset on 1 to 8 GPUs, and print what the estimate rests on."""
    stages: File = None
    """Estimate from the stage times of one device: the output of `bench chunk --json`."""
    picture: File = None
    """Draw the estimate, as a PNG file."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class BenchParity:
    """Compare our numbers with recorded ones of the official code."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of recorded .safetensors files."""
    ranks: Annotated[int, arg(metavar="N")] = 1
    """Share the transformer's runs out among so many ranks, threads of this process."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure speed, or compare with recorded numbers."""

    what: (
        Annotated[BenchChunk, subcommand("chunk")]
        | Annotated[BenchSoak, subcommand("soak")]
        | Annotated[BenchQuality, subcommand("quality")]
        | Annotated[BenchStart, subcommand("start")]
        | Annotated[BenchLatency, subcommand("latency")]
        | Annotated[BenchServed, subcommand("served")]
        | Annotated[BenchText, subcommand("text")]
        | Annotated[BenchSnapshots, subcommand("snapshots")]
        | Annotated[BenchParallel, subcommand("parallel")]
        | Annotated[BenchParity, subcommand("parity")]
    )


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Print what Worldline finds on this machine."""

    memory: bool = False
    """Print instead what every preset needs, and with which options it fits on which card."""
    devices: Annotated[str | None, arg(metavar="LIST", help_behavior_hint="")] = None
    """Print instead what goes where when these devices serve, as of `serve --devices`."""
    sp: Whole = None
    """With it, or alone: ranks that share out every chunk."""
    replicas: Whole = None
    """With it, or alone: copies of the model that serve side by side."""
    vae: Literal["shared", "own"] = "shared"
    """With it, or alone: own puts the autoencoder on a device of its own."""
    model: Annotated[str, arg(metavar="NAME")] = "pocket"
    """The preset that is to be served so."""
    mode: Mode = None
    """And its mode."""
    json: bool = False
    """Print the result as JSON."""


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the presets."""

    json: bool = False
    """Print the result as JSON."""
