"""LoRA files: which change to which tensor of the transformer, read from the header alone.

Understands the ways adapters for this family are written: PEFT and diffusers (`lora_A`, `lora_B`,
with or without an adapter's name), kohya and ComfyUI (`lora_down`, `lora_up`, `alpha`, names joined
by underscores), whole differences (`diff`, `diff_b`), any of the usual prefixes, and the module
names of the published checkpoints or of diffusers. What does not fit is refused as a whole and
named: half an adapter is another adapter. Sizes are compared before a tensor is read. No torch.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

import msgspec

from worldline.core.errors import CheckpointError, KeysError
from worldline.models.tensor_files import Shape, TensorInfo, read_header, read_json

Role = Literal["down", "up", "diff", "diff_b", "alpha"]
FLOATS: Final = ("F32", "F16", "BF16", "F64")
MOST_SHOWN: Final = 4
CONFIG: Final = "adapter_config.json"
_PREFIXES: Final = (
    "base_model.model.",
    "diffusion_model.",
    "transformer.",
    "transformer_2.",
    "unet.",
    "model.",
    "lora_unet_",
    "lora_transformer_",
)
_ROLES: Final[tuple[tuple[str, Role], ...]] = (
    (r"lora_A(?:\.[\w-]+)?\.weight", "down"),
    (r"lora_B(?:\.[\w-]+)?\.weight", "up"),
    (r"lora_down\.weight", "down"),
    (r"lora_up\.weight", "up"),
    (r"lora\.down\.weight", "down"),
    (r"lora\.up\.weight", "up"),
    (r"diff", "diff"),
    (r"diff_b", "diff_b"),
    (r"alpha", "alpha"),
)
_KEY: Final[list[tuple[re.Pattern[str], Role]]] = [
    (re.compile(rf"(.+)\.{pattern}"), role) for pattern, role in _ROLES
]
# Modules as diffusers calls them -> as the published checkpoints do.
_DIFFUSERS: Final = [
    (re.compile(r"\.attn1\.to_([qkv])$"), r".self_attn.\1"),
    (re.compile(r"\.attn2\.to_([qkv])$"), r".cross_attn.\1"),
    (re.compile(r"\.attn1\.to_out\.0$"), ".self_attn.o"),
    (re.compile(r"\.attn2\.to_out\.0$"), ".cross_attn.o"),
    (re.compile(r"\.ffn\.net\.0\.proj$"), ".ffn.0"),
    (re.compile(r"\.ffn\.net\.2$"), ".ffn.2"),
    (re.compile(r"^condition_embedder\.text_embedder\.linear_1$"), "text_embedding.0"),
    (re.compile(r"^condition_embedder\.text_embedder\.linear_2$"), "text_embedding.2"),
    (re.compile(r"^condition_embedder\.time_embedder\.linear_1$"), "time_embedding.0"),
    (re.compile(r"^condition_embedder\.time_embedder\.linear_2$"), "time_embedding.2"),
    (re.compile(r"^condition_embedder\.time_proj$"), "time_projection.1"),
    (re.compile(r"^proj_out$"), "head.head"),
]


class Change(NamedTuple):
    """What a file does to one tensor of the transformer, by the keys of its own tensors.

    Either `up @ down` times `factor`, or the difference `diff` as it is.
    """

    down: str | None = None
    up: str | None = None
    diff: str | None = None
    factor: float = 1.0
    alpha: str | None = None  # its value, divided by the rank, is a factor too


class LoraPlan(NamedTuple):
    """The changes of one file by parameter name (`blocks.0.self_attn.q.weight`)."""

    path: Path
    changes: dict[str, Change]
    digest: str
    rank: int  # the largest; 0 where there are only whole differences


class _AdapterConfig(msgspec.Struct):
    """What PEFT writes beside an adapter; its factor is not in the file."""

    r: int
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    alpha_pattern: dict[str, float] = {}
    rank_pattern: dict[str, int] = {}

    @property
    def factor(self) -> float:
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def plan_lora(path: Path, shapes: Mapping[str, Shape]) -> LoraPlan:
    """What `path` changes in a transformer whose parameters have these `shapes`.

    Raises: CheckpointError for a file that cannot be read, KeysError for one that does not fit.
    """
    if path.suffix != ".safetensors":
        raise CheckpointError(
            f"{path.name} is not read", expected="a .safetensors file", got=path.suffix or "none"
        )
    header = read_header(path)
    factor = _config_factor(path)
    parts = _parts(path, header.tensors, shapes)
    changes, rank = dict[str, Change](), 0
    for name, roles in parts.items():
        if "diff" in roles or "diff_b" in roles:
            changes |= _differences(name, roles, header.tensors, shapes)
        if "down" in roles or "up" in roles:
            change, own = _product(name, roles, header.tensors, shapes, factor=factor)
            changes[f"{name}.weight"] = change
            rank = max(rank, own)
    if not changes:
        raise KeysError(f"{path.name} changes nothing", expected="a LoRA for the transformer")
    return LoraPlan(path, changes, _digest(path, factor), rank)


def _parts(
    path: Path, tensors: Mapping[str, TensorInfo], shapes: Mapping[str, Shape]
) -> dict[str, dict[Role, str]]:
    """Keys of the file by module and role. Raises: KeysError."""
    modules = {name.rpartition(".")[0] for name in shapes}
    joined = {module.replace(".", "_"): module for module in modules}
    parts: dict[str, dict[Role, str]] = {}
    strange: list[str] = []
    for key, info in tensors.items():
        found = _split(key)
        module = None if found is None else _module(found[0], modules, joined)
        if found is None or module is None:
            strange.append(key)
            continue
        roles = parts.setdefault(module, {})
        if found[1] in roles:
            raise KeysError(f"{path.name} changes {module} twice", got=key)
        if info.dtype not in FLOATS:
            raise KeysError(f"{path.name} has a tensor that is not read", got=f"{key} {info.dtype}")
        roles[found[1]] = key
    if strange:
        got = ", ".join(sorted(strange)[:MOST_SHOWN]) + (" ..." if strange[MOST_SHOWN:] else "")
        raise KeysError(
            f"{path.name} does not fit: {len(strange)} of its {len(tensors)} tensors are for no "
            "part of this transformer",
            expected="LoRA of its layers (lora_A, lora_B, lora_down, lora_up, alpha, diff, diff_b)",
            got=got,
        )
    return parts


def _split(key: str) -> tuple[str, Role] | None:
    """Module and role of a key."""
    for pattern, role in _KEY:
        if found := pattern.fullmatch(key):
            return found[1], role
    return None


def _module(name: str, modules: set[str], joined: Mapping[str, str]) -> str | None:
    """The module of ours that a file means by `name`."""
    for candidate in _bare(name):
        if candidate in modules:
            return candidate
        for pattern, ours in _DIFFUSERS:
            renamed = pattern.sub(ours, candidate)
            if renamed != candidate and renamed in modules:
                return renamed
        if candidate in joined:
            return joined[candidate]
    return None


def _bare(name: str) -> Iterator[str]:
    """A name without each of the prefixes it begins with, one after the other."""
    yield name
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            yield from _bare(name.removeprefix(prefix))


def _differences(
    name: str,
    roles: Mapping[Role, str],
    tensors: Mapping[str, TensorInfo],
    shapes: Mapping[str, Shape],
) -> dict[str, Change]:
    found: dict[str, Change] = {}
    keys = {"weight": roles.get("diff"), "bias": roles.get("diff_b")}
    for leaf, key in keys.items():
        if key is None:
            continue
        wanted = shapes.get(f"{name}.{leaf}")
        if wanted is None or tensors[key].shape != wanted:
            raise KeysError(
                "a difference that does not fit", expected=wanted, got=_said(key, tensors)
            )
        found[f"{name}.{leaf}"] = Change(diff=key)
    return found


def _product(
    name: str,
    roles: Mapping[Role, str],
    tensors: Mapping[str, TensorInfo],
    shapes: Mapping[str, Shape],
    *,
    factor: float,
) -> tuple[Change, int]:
    """The change and its rank."""
    down, up = roles.get("down"), roles.get("up")
    wanted = shapes.get(f"{name}.weight", ())
    if down is None or up is None:
        raise KeysError("half a LoRA", expected="both matrices", got=down or up)
    if "diff" in roles:
        raise KeysError("a LoRA and a difference of one weight", got=name)
    inner, outer = _flat(tensors[down].shape), _flat(tensors[up].shape)
    rank = inner[0]
    if not 0 < rank == outer[1] or (outer[0], inner[1]) != _flat(wanted):
        got = f"{_said(up, tensors)} times {_said(down, tensors)}"
        raise KeysError("a LoRA that does not fit", expected=f"{name}.weight {wanted}", got=got)
    alpha = roles.get("alpha")
    if alpha is not None and math.prod(tensors[alpha].shape) != 1:
        raise KeysError("an alpha that is no number", got=_said(alpha, tensors))
    return Change(down, up, None, 1.0 if alpha else factor, alpha), rank


def _flat(shape: Shape) -> tuple[int, int]:
    """A matrix of that many rows and columns; the shape of a vector has none."""
    return (shape[0], math.prod(shape[1:])) if len(shape) >= 2 else (0, 0)


def _said(key: str, tensors: Mapping[str, TensorInfo]) -> str:
    return f"{key} {list(tensors[key].shape)}"


def _config_factor(path: Path) -> float:
    """The factor that PEFT writes beside its files; 1 without. Raises: CheckpointError."""
    beside = path.parent / CONFIG
    if not beside.is_file():
        return 1.0
    try:
        config = msgspec.convert(read_json(beside), _AdapterConfig)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{CONFIG} beside {path.name} is not usable", got=error) from None
    if config.r < 1 or config.use_dora or config.alpha_pattern or config.rank_pattern:
        raise CheckpointError(
            f"{path.name} is an adapter of another kind",
            expected="plain LoRA of one rank and alpha",
            got=CONFIG,
        )
    return config.factor


def _digest(path: Path, factor: float) -> str:
    """Equal for equal files that mean the same; reads all of it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if factor != 1.0:  # it is not in the file
        digest.update(repr(factor).encode())
    return digest.hexdigest()[:16]
