"""What all sessions of a worker share: networks, savings, and the workspace of one chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from worldline.core.errors import PromptError
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.preset import Preset
from worldline.ops.block_math import BlockMath
from worldline.ops.vae import StreamingVae
from worldline.runtime.first_chunk import FirstChunks
from worldline.runtime.kv_cache import KVRing
from worldline.runtime.kv_int8 import Int8Ring
from worldline.runtime.lane import Lane
from worldline.runtime.ledger import Ledger
from worldline.runtime.negative_cache import NegativeCache
from worldline.runtime.parallel.shards import Shards
from worldline.runtime.passes import Passes
from worldline.runtime.ring_pool import RingPool
from worldline.runtime.step_cache import StepCache
from worldline.runtime.text_cache import Text, TextCache
from worldline.runtime.timing import StageClock, unwatched

if TYPE_CHECKING:
    from weakref import WeakSet

    from worldline.kernels.attention import AttentionChooser
    from worldline.runtime.session import Session


def naked() -> None:
    """There are no adapters to put on or take off."""


class Engine(NamedTuple):
    """See the module's contract; a value. `camera_cache` is decided for every session's size."""

    preset: Preset
    dit: LingBotDiT
    vae: StreamingVae
    texts: TextCache
    negatives: NegativeCache  # the negative prompt of guided films
    workspace: StepCache  # of the chunk in flight
    buffers: StepCache  # allocated once
    stationary: dict[tuple[int, int], Tensor]  # per latent grid
    reanchor_at: int  # latent frames
    camera_cache: bool
    passes: Passes
    first_chunks: FirstChunks
    rings: RingPool
    ledger: Ledger
    ring_kind: type[KVRing] | type[Int8Ring]
    chooser: AttentionChooser | None  # finds the attention of each shape; None: torch decides
    lane: Lane
    math: BlockMath  # what computes between the matmuls
    without: frozenset[str]  # savings that are switched off, see `savings`
    levers: Mapping[str, int]  # lossy ones that are on, with their numbers
    recache: bool
    synchronise: bool
    shards: Shards  # what this rank has of every chunk
    weights: str  # equal for equal weights
    timeline_bytes: int  # what a session may keep of its past
    sessions: WeakSet[Session]  # all that are open
    entered: Callable[[str], None] = unwatched  # told of every stage of a chunk that begins
    wear: Callable[[], object] = naked  # puts on the adapters of the session, see `lora`

    def clock(self) -> StageClock:
        """A stage clock of this device."""
        return StageClock(self.dit.device, synchronise=self.synchronise, entered=self.entered)

    def text(self, prompt: str) -> Text:
        """Text states of a prompt on the device. Raises `PromptError` if it is empty."""
        if not prompt.strip():
            raise PromptError("the prompt is empty", expected="some words", got=repr(prompt))
        if prompt not in self.texts:  # may take long, on a CPU very long
            self.entered("text")
        return self.texts.get(prompt)
