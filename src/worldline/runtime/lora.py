"""LoRA: adapters that a loaded transformer wears, switched between requests.

The weights themselves are changed, in place: passes cost what they cost without, recorded graphs
and joined or packed projections stay what they are, and eight-bit weights are rounded anew from the
changed ones. What a change touches is kept as it was on the host, so taking everything off gives
back every bit. A session wears the same from its beginning to its end; whose turn it is puts on
what it wears (`Wardrobe.wear`), which costs nothing when the last one wore the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from worldline.core.errors import CheckpointError, ConfigError
from worldline.core.lora import Outfit, check_outfit, parse_spec
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lora_file import Change, LoraPlan, plan_lora
from worldline.quant.linear import Fp8Linear
from worldline.runtime.offload import BlockOffload

if TYPE_CHECKING:
    from worldline.runtime.loader import Components
    from worldline.runtime.shared import Engine

NOTHING: Outfit = ()


class Lora(NamedTuple):
    """A loaded adapter: its matrices on the host, by parameter of each expert it is for."""

    plan: LoraPlan
    tensors: dict[str, Tensor]
    experts: frozenset[int]


class Look:
    """What a session wears; calling it puts that on. The wardrobe knows of all there are."""

    def __init__(self, wardrobe: Wardrobe, outfit: Outfit) -> None:
        self.outfit = outfit
        self._wardrobe = wardrobe

    def __call__(self) -> bool:
        """Have the networks wear it; whether anything had to be changed."""
        return self._wardrobe.wear(self.outfit)


class _Place(NamedTuple):
    """One parameter of one expert."""

    expert: int
    name: str


class Wardrobe:
    """The adapters of a loaded model and what its networks wear now. For the device's thread."""

    def __init__(self, dits: Sequence[LingBotDiT], *, changed: Callable[[], None]) -> None:
        """`dits` are the experts; `changed` hears of every change of weights."""
        self._dits = list(dits)
        self._changed = changed
        self._loras: dict[str, Lora] = {}
        self._originals: dict[_Place, dict[str, Tensor]] = {}
        self._looks: WeakSet[Look] = WeakSet()
        self._worn = self._usual = NOTHING
        self._torn: frozenset[_Place] = frozenset()  # not all as `_worn` says: a change failed

    @property
    def names(self) -> list[str]:
        """Of the loaded ones."""
        return list(self._loras)

    @property
    def worn(self) -> Outfit:
        """Names and scales of what is on."""
        return self._worn

    @property
    def nbytes(self) -> int:
        """Host memory of matrices and originals."""
        matrices = sum(t.nbytes for lora in self._loras.values() for t in lora.tensors.values())
        kept = sum(t.nbytes for parts in self._originals.values() for t in parts.values())
        return matrices + kept

    def load(
        self, name: str, path: Path | str, *, experts: Sequence[int] | None = None
    ) -> LoraPlan:
        """Load an adapter from a file, for all experts or some.

        Raises: CheckpointError, KeysError, ConfigError for a name that is taken.
        """
        if not name or name in self._loras or not name.isprintable() or set(name) & set(",:=@"):
            raise ConfigError("this name cannot be had", expected="a new, plain name", got=name)
        wanted = range(len(self._dits)) if experts is None else experts
        if not wanted or not all(0 <= expert < len(self._dits) for expert in wanted):
            raise ConfigError("no such expert", expected=f"0 to {len(self._dits) - 1}", got=wanted)
        plan = plan_lora(
            Path(path), {n: tuple(t.shape) for n, t in self._dits[0].named_parameters()}
        )
        self._loras[name] = Lora(plan, _read(plan), frozenset(wanted))
        return plan

    def always(self, spec: str) -> None:
        """Load `[NAME=]FILE[@SCALE]`, for every session that names nothing itself.

        Raises: as `load`.
        """
        name, path, scale = parse_spec(spec)
        self.load(name, path)
        self._usual = self.check((*self._usual, (name, scale)))

    def dressed(self, engine: Engine, outfit: Outfit | None) -> Engine:
        """`engine` for a session that wears this; None is what all wear. Raises: ConfigError."""
        look = Look(self, self.check(self._usual if outfit is None else outfit))
        self._looks.add(look)
        return engine._replace(weights=engine.weights + self.mark(look.outfit), wear=look)

    def unload(self, name: str) -> None:
        """Forget an adapter; it is taken off first.

        Raises: ConfigError for an unknown one, and for one that a session wears.
        """
        self._known(name)
        users = sum(name in dict(look.outfit) for look in self._looks)
        if users:
            raise ConfigError("this LoRA is in use", expected="no session with it", got=users)
        self._usual = tuple(one for one in self._usual if one[0] != name)
        self.wear(tuple(one for one in self._worn if one[0] != name))
        del self._loras[name]
        touched = {place for lora in self._loras.values() for place in _places(lora)}
        for place in [place for place in self._originals if place not in touched]:
            del self._originals[place]

    def check(self, outfit: Outfit) -> Outfit:
        """The outfit without what has no effect. Raises: ConfigError for one that cannot be."""
        return check_outfit(outfit, self.names)

    def mark(self, outfit: Outfit | None = None) -> str:
        """What tells weights that wear this from those that wear nothing; "" for nothing.

        None is what all wear.
        """
        wanted = self.check(self._usual if outfit is None else outfit)
        return "".join(f"+{self._mark_of(self._loras[name])}*{scale!r}" for name, scale in wanted)

    def _mark_of(self, lora: Lora) -> str:
        some = sorted(lora.experts) if len(lora.experts) < len(self._dits) else ""
        return f"{lora.plan.digest}{some}"

    @torch.no_grad()
    def wear(self, outfit: Outfit) -> bool:
        """Have the networks wear this and nothing else; whether anything had to be changed.

        Raises: ConfigError for what is not loaded; then nothing has changed. What else fails (for
        memory) leaves weights that the next call writes anew.
        """
        wanted = self._worn if outfit == self._worn else self.check(outfit)
        if wanted == self._worn and not self._torn:
            return False
        before = {place for name, _ in self._worn for place in _places(self._loras[name])}
        after = {place for name, _ in wanted for place in _places(self._loras[name])}
        self._quiesce()
        self._torn |= before | after
        for place in sorted(self._torn):
            self._dress(place, wanted)
        self._worn, self._torn = wanted, frozenset()
        for dit in self._dits:
            _settle(dit)
        self._changed()
        return True

    def _known(self, name: str) -> Lora:
        lora = self._loras.get(name)
        if lora is None:
            listed = ", ".join(self._loras) or "none is loaded"
            raise ConfigError("no such LoRA", expected=listed, got=name[:80])
        return lora

    def _dress(self, place: _Place, outfit: Outfit) -> None:
        """Write one parameter as it was, plus what is worn."""
        owner, leaf = _owner(self._dits[place.expert], place.name)
        targets = self._targets(place.expert, owner, leaf)
        kept = self._originals.get(place)
        if kept is None:
            kept = {part: tensor.detach().cpu().clone() for part, tensor in targets.items()}
            self._originals[place] = kept
        deltas = [
            (lora, lora.plan.changes[place.name], scale)
            for name, scale in outfit
            if place in _places(lora := self._loras[name])
        ]
        new = _summed(owner, kept, deltas, self._dits[place.expert].device) if deltas else kept
        for part, tensor in targets.items():
            tensor.copy_(new[part])

    def _targets(self, expert: int, owner: nn.Module, leaf: str) -> dict[str, Tensor]:
        """The tensors behind a parameter, where they really are."""
        leaves = (
            ["weight", "scale"] if isinstance(owner, Fp8Linear) and leaf == "weight" else [leaf]
        )
        residency = self._dits[expert].residency
        if isinstance(residency, BlockOffload):
            homes = {part: residency.home(owner, part) for part in leaves}
            return {part: getattr(owner, part) if t is None else t for part, t in homes.items()}
        return {part: getattr(owner, part) for part in leaves}

    def _quiesce(self) -> None:
        """Nothing is copied or computed with these weights any more."""
        for dit in self._dits:
            if dit.device.type == "cuda":
                torch.cuda.synchronize(dit.device)


def wardrobe_of(components: Components, shared: Engine) -> Wardrobe:
    """An empty one for a loaded model; what was made of other weights is dropped with each change.

    The autoencoder and the text encoder wear nothing: what is kept of these stays, but for the
    negative prompt, which is not worth the doubt.
    """

    def changed() -> None:
        shared.workspace.clear()
        shared.negatives.invalidate()

    low = components.low_noise_dit
    dits = [components.dit] if low is None else [components.dit, low]
    return Wardrobe(dits, changed=changed)


def _places(lora: Lora) -> Iterator[_Place]:
    return (_Place(expert, name) for expert in lora.experts for name in lora.plan.changes)


def _owner(dit: LingBotDiT, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return dit.get_submodule(path), leaf


def _summed(
    owner: nn.Module,
    kept: Mapping[str, Tensor],
    deltas: Sequence[tuple[Lora, Change, float]],
    device: torch.device,
) -> Mapping[str, Tensor]:
    """The tensors of a parameter with all changes, added up in float32."""
    quantised = "scale" in kept
    (first, original) = next(iter(kept.items()))
    full = original.to(device, torch.float32, copy=True)  # the original stays what it is
    if quantised:
        full = full * kept["scale"].to(device)
    for lora, change, scale in deltas:
        full += _delta(lora, change, device).view_as(full) * scale
    if quantised:
        assert isinstance(owner, Fp8Linear), "only eight-bit layers have scales"
        return owner.weight_rows(full)
    return {first: full}


def _delta(lora: Lora, change: Change, device: torch.device) -> Tensor:
    if change.diff is not None:
        return lora.tensors[change.diff].to(device).float()
    assert change.up is not None and change.down is not None, "a product has both"
    up, down = (lora.tensors[key].to(device).float().flatten(1) for key in (change.up, change.down))
    factor = change.factor
    if change.alpha is not None:
        factor *= float(lora.tensors[change.alpha]) / len(down)
    return (up @ down) * factor


def _read(plan: LoraPlan) -> dict[str, Tensor]:
    """The file's tensors on the host. Raises: CheckpointError."""
    keys = {key for change in plan.changes.values() for key in change if isinstance(key, str)}
    try:
        with safe_open(plan.path, framework="pt", device="cpu") as file:
            tensors = {key: file.get_tensor(key).clone() for key in keys}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"cannot read {plan.path.name}: {error}") from None
    wrong = [key for key, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
    if wrong:
        raise CheckpointError(f"{plan.path.name} holds numbers that are none", got=wrong[0])
    return tensors


def _settle(dit: LingBotDiT) -> None:
    """What was made of the weights follows them."""
    if isinstance(dit.residency, BlockOffload):
        dit.residency.fetch_again()
        return
    for block in dit.iter_blocks():
        block.self_attn.follow()
