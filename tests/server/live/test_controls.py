"""A chunk that is given up never was: controls against the same walk without those chunks."""

from __future__ import annotations

from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.hands import Sample, fold, noted
from worldline.core.live.client import Keys, Pad, Pointer, Release, Script
from worldline.core.motion import Rig
from worldline.server.live.controls import Controls, NewPrompt

Act = Keys | Pad | Pointer | Script | Release | str | bool
"""An input, new words, or a chunk: True is made, False is given up."""

HELD = st.lists(st.sampled_from("wasdijkl"), max_size=3, unique=True).map(tuple)
ACTS = st.one_of(
    st.booleans(),
    st.sampled_from(["snow", "rain"]),
    st.builds(lambda held, at: Keys(id=1, held=held, at_ms=at), HELD, st.floats(0, 3000)),
    st.builds(lambda x, at: Pad(id=1, x=x, at_ms=at), st.floats(-1, 1), st.floats(0, 3000)),
    st.builds(lambda yaw: Pointer(id=1, yaw=yaw), st.floats(-90, 90)),
    st.builds(lambda held: Script(id=1, frames=(held, (), held)), HELD),
    st.just(Release(id=1)),
)


def with_id(message: Keys | Pad | Pointer | Script | Release, id: int) -> Keys | Pad | Pointer:
    fields = {name: getattr(message, name) for name in message.__struct_fields__}
    return type(message)(**(fields | {"id": id}))  # pyright: ignore


def walk(acts: list[tuple[int, Act]], frames: int) -> list[tuple[Sample, NewPrompt | None]]:
    """What the chunks that were made took. While one is on its way, inputs go on coming."""
    controls = Controls(1.0, latent_s=0.25, rig=Rig(), frames=frames)
    made: list[tuple[Sample, NewPrompt | None]] = []
    on_its_way = False
    for id, act in [*acts, (0, True), (0, True)]:
        if isinstance(act, bool):
            if on_its_way:
                controls.put_back()
            taken, on_its_way = controls.take(0.0), not act
            if act:
                controls.keep()
                made.append((taken.sample, taken.prompt))
        elif isinstance(act, str):
            controls.fold(id, partial(noted, id=id), now=0.0)
            controls.prompt = NewPrompt(act, 0)
        else:
            controls.fold(id, partial(fold, message=with_id(act, id)), now=0.0)
    return made


@settings(max_examples=300, deadline=None)
@given(acts=st.lists(ACTS, max_size=14), frames=st.integers(1, 4))
def test_given_up_chunks_change_nothing_and_lose_nothing(acts: list[Act], frames: int) -> None:
    numbered = list(enumerate(acts, start=1))
    never = [(id, act) for id, act in numbered if act is not False]
    assert walk(numbered, frames) == walk(never, frames)


def test_how_long_an_input_waited_counts_from_when_it_first_came() -> None:
    controls = Controls(1.0, latent_s=0.25, rig=Rig(), frames=3)
    controls.fold(1, partial(fold, message=Keys(id=1, held=("w",))), now=10.0)
    assert controls.take(10.5).inbox_s == 0.5
    controls.put_back()
    controls.fold(2, partial(noted, id=2), now=10.8)
    assert controls.take(11.0).inbox_s == 1.0
    controls.keep()
    assert controls.take(12.0).inbox_s == 0.0
