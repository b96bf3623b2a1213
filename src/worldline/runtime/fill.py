"""Fill modules with weights: from files, tensor by tensor, or with seeded random numbers.

Modules arrive on the meta device and get each tensor in its final dtype on its final device, so the
host never holds more than one tensor beyond what it keeps, and a network is never whole in a dtype
it does not run in. All names and shapes are compared before the first weight is read; whatever
does not fit is one `KeysError`. Pickled files are opened with `weights_only`; code in them is an
`UnsafeFileError` and never runs.
"""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from worldline.core.errors import CheckpointError, KeysError, UnsafeFileError
from worldline.models.tensor_files import Shape, WeightFiles, listed, shapes_of, tensor_table
from worldline.quant.linear import Fp8Linear

TORCH_FILES = (b"PK", b"\x80")  # how a zip and a bare pickle begin

Progress = Callable[[int, int, str], None]
Rename = Callable[[str], str | None]  # file name -> module name; None for a tensor not wanted
DtypeOf = Callable[[str], torch.dtype | None]  # module name -> dtype; None keeps the file's
Store = Callable[[nn.Module, str, Tensor], None]  # module, attribute, its new value


class Source:
    """The tensors of one network in their files, under the module's names.

    `shapes` is known at once; `tensors` then reads them one at a time. Raises `CheckpointError`
    for unreadable files and `UnsafeFileError` for pickles that hold more than tensors.
    """

    def __init__(self, weights: WeightFiles, *, rename: Rename) -> None:
        self.weights = weights
        self._loaded: dict[str, Tensor] = {}
        if weights.pickled:
            self._loaded = open_pickle(weights.files[0])
            shapes = {name: tuple(t.shape) for name, t in self._loaded.items()}
            sizes = {name: t.nbytes for name, t in self._loaded.items()}
        else:
            table = tensor_table(weights)
            shapes = shapes_of(table)
            sizes = {name: info.nbytes for name, (info, _) in table.items()}
        renamed = {name: rename(name) for name in shapes}
        self._names = {ours: theirs for theirs, ours in renamed.items() if ours is not None}
        self.shapes: dict[str, Shape] = {ours: shapes[n] for ours, n in self._names.items()}
        self.nbytes = sum(sizes[name] for name in self._names.values())

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Each tensor once, under its module name, as a view of the file: copy what you keep."""
        theirs = {name: ours for ours, name in self._names.items()}
        if self.weights.pickled:
            yield from ((theirs[name], t) for name, t in self._loaded.items() if name in theirs)
            return
        prefix = self.weights.prefix
        for path in self.weights.files:
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    for name in file.keys():  # noqa: SIM118  (not a dict)
                        key = name.removeprefix(prefix)
                        if name.startswith(prefix) and key in theirs:
                            yield theirs[key], file.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"cannot read {path.name}: {error}") from error


def open_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` file, memory-mapped where its format allows.

    Only the tensor-only subset of pickle is accepted, so no code of the file ever runs.
    """
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if not start.startswith(TORCH_FILES):
            raise CheckpointError(f"{path.name} is no torch file", got=f"a file starting {start!r}")
        value = _unpickle(path)
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(
            f"{path.name} holds more than tensors and was not opened; get it from its publisher "
            "again, or convert it to safetensors where you trust it",
            expected="a state dict of tensors",
            got=str(error).splitlines()[0][:200],
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(f"{path.name} is truncated or no torch file: {reason}") from error
    if not isinstance(value, Mapping) or not all(isinstance(v, Tensor) for v in value.values()):
        raise CheckpointError(
            f"{path.name} is not usable",
            expected="a state dict of tensors",
            got=type(value).__name__,
        )
    return {str(name): tensor for name, tensor in value.items()}


def _unpickle(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on the pickle's version, to its publisher
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files from before torch's zip format cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True)


def key_faults(module: nn.Module, shapes: Mapping[str, Shape]) -> list[str]:
    """What does not fit between a network and its source: missing, unexpected, mis-shaped."""
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    missing = sorted(wanted.keys() - shapes.keys())
    unexpected = sorted(shapes.keys() - wanted.keys())
    wrong = [
        f"{name} {list(shapes[name])} instead of {list(wanted[name])}"
        for name in sorted(wanted.keys() & shapes.keys())
        if shapes[name] != wanted[name]
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("mis-shaped", wrong))
    return [f"{len(names)} {kind}: {listed(names)}" for kind, names in kinds if names]


def compare_keys(pairs: Iterable[tuple[str, nn.Module, Source]], *, layout: str) -> None:
    """Raise one `KeysError` that lists every fault of every part and the layout assumed."""
    faults = [
        f"{label}: {fault}"
        for label, module, source in pairs
        for fault in key_faults(module, source.shapes)
    ]
    if faults:
        raise KeysError(
            f"the tensors do not fit the networks (layout assumed: {layout})", got="; ".join(faults)
        )


def attach(owner: nn.Module, leaf: str, tensor: Tensor) -> None:
    """Make `tensor` the parameter or buffer `leaf` of `owner`."""
    is_parameter = isinstance(getattr(owner, leaf), nn.Parameter)
    setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def fill_from(
    module: nn.Module,
    source: Source,
    *,
    device: torch.device,
    dtype_of: DtypeOf,
    done: Callable[[int], None] = lambda nbytes: None,
    store: Store = attach,
) -> None:
    """Replace every tensor of `module` by the source's, cast and moved one at a time.

    Names and shapes must have been compared. Weights of eight-bit layers are quantised as they
    come. `done` is told the bytes of each tensor read; `store` puts tensors elsewhere.
    """
    for name, tensor in source.tensors():
        # A copy always: a view of a mapped file would change, or crash, when the file does.
        loaded = tensor.to(device, dtype_of(name) or tensor.dtype, copy=True)
        place(module, name, loaded, store=store)
        done(tensor.nbytes)
    seal(module, device)


def fill_random(
    module: nn.Module,
    *,
    device: torch.device,
    dtype_of: DtypeOf,
    seed: int,
    label: str,
    store: Store = attach,
) -> None:
    """Draw every tensor of `module` on the device in its final dtype; same seed, same numbers.

    Matrices have the deviation that keeps activations of order one, gains are near 1, biases near
    0. Each tensor has its own generator, so the order of drawing does not matter.
    """
    for name, old in module.state_dict().items():
        tensor = torch.empty(old.shape, dtype=dtype_of(name) or old.dtype, device=device)
        digest = hashlib.sha256(f"{seed}/{label}/{name}".encode()).digest()
        generator = torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "little"))
        mean, std = _spread_of(name, old.shape)
        place(module, name, tensor.normal_(mean, std, generator=generator), store=store)
    seal(module, device)


def _spread_of(name: str, shape: torch.Size) -> tuple[float, float]:
    """Mean and deviation of a random stand-in for tensor `name`."""
    wide = max(shape, default=1)
    if shape.numel() == wide:  # a vector, whatever the number of axes of size 1
        gain = name.endswith(("weight", "gamma", "gain", "scale"))
        return (1.0, 0.02) if gain else (0.0, 0.02)
    fan_in = shape.numel() // shape[0]
    return 0.0, fan_in**-0.5


def place(module: nn.Module, name: str, tensor: Tensor, *, store: Store = attach) -> None:
    """Put `tensor` where the parameter or buffer `name` is; eight-bit weights are quantised."""
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    if isinstance(owner, Fp8Linear) and leaf == "weight":
        for part, rows in owner.weight_rows(tensor).items():
            store(owner, part, rows)
    else:
        store(owner, leaf, tensor)


def seal(module: nn.Module, device: torch.device) -> None:
    """Switch to inference and make sure nothing was left without values or on another device."""
    module.eval().requires_grad_(False)
    module.to(device)  # buffers that no checkpoint holds are still where they were made
    tensors = [*module.named_parameters(), *module.named_buffers()]
    hollow = [name for name, tensor in tensors if tensor.is_meta]
    assert not hollow, f"tensors without values after loading: {listed(hollow)}"
