"""The negative prompt: encoded once, by reference, and only where guidance needs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests import film_worlds as worlds
from tests import tiny
from tests.runtime.test_lora import adapter, network
from worldline.core.errors import PromptError
from worldline.runtime.films import open_film
from worldline.runtime.negative_cache import NegativeCache, digest_of, frozen, guards_wanted

GUIDED = 5.0
NEGATIVE = "blurred, static, worst quality"


class Encoder:
    """States that tell the prompt and how often it was asked for."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str) -> Tensor:
        self.prompts.append(prompt)
        states = torch.zeros(1, 8, 4)
        generator = torch.Generator().manual_seed(sum(prompt.encode()))
        states[:, :3] = torch.randn(1, 3, 4, generator=generator)
        return states


def cache(encode: Encoder, *, guarded: bool = False) -> NegativeCache:
    return NegativeCache(encode, model="base", encoders=("umt5",), guarded=guarded)


def test_ten_requests_encode_once_and_are_equal_to_the_bit() -> None:
    encode = Encoder()
    kept = cache(encode)
    found = [kept.get(NEGATIVE, guidance=GUIDED) for _ in range(10)]
    first = found[0]
    assert first is not None
    assert first.rows == 3
    assert kept.encoded == len(encode.prompts) == 1
    assert all(one is first for one in found)
    fresh = cache(Encoder()).get(NEGATIVE, guidance=GUIDED)
    assert fresh is not None
    assert (fresh.states - first.states).abs().max() == 0


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0])
def test_without_guidance_nothing_is_encoded(guidance: float) -> None:
    encode = Encoder()
    kept = cache(encode)
    assert kept.get(NEGATIVE, guidance=guidance) is None
    assert encode.prompts == [] and len(kept) == 0


def test_warm_up_neither_reads_nor_writes() -> None:
    encode = Encoder()
    kept = cache(encode)
    kept.get(NEGATIVE, guidance=GUIDED, warm_up=True)
    assert len(kept) == 0
    real = kept.get(NEGATIVE, guidance=GUIDED)
    warm = kept.get(NEGATIVE, guidance=GUIDED, warm_up=True)
    assert warm is not real
    assert kept.get(NEGATIVE, guidance=GUIDED) is real
    assert len(encode.prompts) == 3


def test_one_entry_and_a_key_of_what_changes_the_result() -> None:
    encode = Encoder()
    kept = cache(encode)
    template = {"system": "describe", "parts": ["a", "b"]}
    first = kept.get(NEGATIVE, guidance=GUIDED, template=template)
    assert kept.get(NEGATIVE, guidance=2.0, template=dict(reversed(template.items()))) is first
    template["system"] = "other"  # the key was frozen: this does not reach it
    assert kept.get(NEGATIVE, guidance=GUIDED, template=template) is not first
    kept.get("another", guidance=GUIDED)
    assert len(kept) == 1
    kept.get(NEGATIVE, guidance=GUIDED)
    assert encode.prompts == [NEGATIVE, NEGATIVE, "another", NEGATIVE]


def test_new_weights_invalidate() -> None:
    encode = Encoder()
    kept = cache(encode)
    kept.get(NEGATIVE, guidance=GUIDED)
    kept.invalidate()
    assert len(kept) == 0
    kept.get(NEGATIVE, guidance=GUIDED)
    assert len(encode.prompts) == 2


def test_a_failed_encode_leaves_nothing_behind() -> None:
    def fail(prompt: str) -> Tensor:
        raise RuntimeError(prompt)

    kept = NegativeCache(fail, model="base")
    with pytest.raises(RuntimeError):
        kept.get(NEGATIVE, guidance=GUIDED)
    assert len(kept) == 0 and kept.encoded == 0


def test_debug_runs_notice_writes() -> None:
    kept = cache(Encoder(), guarded=True)
    text = kept.get(NEGATIVE, guidance=GUIDED)
    assert text is not None
    assert kept.get(NEGATIVE, guidance=GUIDED) is text
    text.states.mul_(2)
    with pytest.raises(AssertionError, match="written to"):
        kept.get(NEGATIVE, guidance=GUIDED)


def test_debug_runs_notice_writes_that_torch_does_not_count() -> None:
    kept = cache(Encoder(), guarded=True)
    text = kept.get(NEGATIVE, guidance=GUIDED)
    assert text is not None
    text.states.numpy()[:] += 1
    with pytest.raises(AssertionError, match="have changed"):
        kept.get(NEGATIVE, guidance=GUIDED)


def test_other_runs_do_not_pay_for_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(states: Tensor) -> bytes:
        raise AssertionError("hashed")

    monkeypatch.setattr("worldline.runtime.negative_cache.digest_of", refuse)
    assert cache(Encoder()).get(NEGATIVE, guidance=GUIDED) is not None


def test_log_level_debug_is_a_debug_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLDLINE_LOG_LEVEL", "debug")
    assert guards_wanted()


def test_keys_are_of_plain_values() -> None:
    assert frozen([1, {"a": None}]) == frozen((1, {"a": None}))
    assert frozen(1) != frozen(True) and frozen("1") != frozen(1) != frozen(1.5)
    with pytest.raises(PromptError):
        frozen(object())


def test_digests_see_every_bit() -> None:
    states = torch.zeros(2, 3, dtype=torch.bfloat16)
    before = digest_of(states)
    states[1, 2] = -0.0
    assert digest_of(states) != before


def test_ten_films_encode_their_negative_prompt_once() -> None:
    pytest.importorskip("diffusers")
    world = worlds.pretrain()
    kept = world.shared.negatives
    for seed in range(10):
        with open_film(world, worlds.request(4, chunks=2, seed=seed), tiny.picture()):
            pass
    assert kept.encoded == 1
    with open_film(world, worlds.request(4, chunks=2, guidance=1.0), tiny.picture()):
        pass
    assert kept.encoded == 1
    with open_film(world, worlds.request(4, chunks=2, negative_prompt="dark"), tiny.picture()):
        pass
    assert (kept.encoded, len(kept)) == (2, 1)


def test_films_wear_adapters_and_changed_weights_invalidate(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    world = worlds.pretrain()
    path = adapter(tmp_path / "a.safetensors", network(), layers=("blocks.1.self_attn.q",))
    world.loras.load("a", path)
    asked = worlds.request(4, chunks=2)
    plain = worlds.made(world, asked)
    assert len(world.shared.negatives) == 1
    worn = worlds.request(4, chunks=2, loras=(("a", 1.0),))
    alone = worlds.made(world, worn)
    assert (alone != plain).any()
    assert len(world.shared.negatives) == 0  # with other weights nothing is taken for granted
    with (
        open_film(world, asked, tiny.picture()) as one,
        open_film(world, worn, tiny.picture()) as two,
    ):
        parts: dict[str, list[Tensor]] = {"one": [], "two": []}
        while not (one.done and two.done):  # by turns, as in a worker
            for name, job in (("one", one), ("two", two)):
                shown = None if job.done else job.advance()
                parts[name] += [] if shown is None else [torch.from_numpy(shown)]
    assert torch.equal(torch.cat(parts["one"]), torch.from_numpy(plain))
    assert torch.equal(torch.cat(parts["two"]), torch.from_numpy(alone))
