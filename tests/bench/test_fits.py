"""Which options a card needs: the first that fit, and none that are not needed."""

from __future__ import annotations

import json
import shlex

import msgspec
import pytest

from worldline.bench import fits
from worldline.bench.fits import GIB, OFFLOADED, USABLE, WAYS, Need, as_markdown, fitting, flags_of
from worldline.bench.plan import plan_memory, wanted
from worldline.cli.loading import worker_settings
from worldline.cli.main import main, parse
from worldline.cli.options import Serve
from worldline.core.config import EngineOptions
from worldline.models.registry import get_preset
from worldline.runtime.offload import ROTATING

POCKET = get_preset("pocket")


def test_smaller_cards_need_more_until_none_is_left() -> None:
    largest = plan_memory(wanted(POCKET)).peak() / USABLE
    known = [*WAYS, *OFFLOADED]
    found: list[int] = []
    for percent in range(100, 0, -4):
        fit = fitting(POCKET, "fast", largest * percent / 100)
        if fit is None:
            found.append(len(known))
            continue
        assert fit.plan.peak() <= largest * percent / 100 * USABLE
        way = next(i for i, options in enumerate(known) if same_but_blocks(options, fit.options))
        found.append(way)
    assert found[0] == 0 and found[-1] == len(known)
    assert found == sorted(found)
    assert any(len(WAYS) <= way < len(known) for way in found)  # some only with blocks on the host


def same_but_blocks(one: EngineOptions, other: EngineOptions) -> bool:
    """Whether two ways differ in nothing but the number of blocks on the device."""
    names = [name for name in one.__struct_fields__ if name != "resident_blocks"]
    return all(getattr(one, name) == getattr(other, name) for name in names)


def test_as_many_blocks_stay_on_the_card_as_fit() -> None:
    least = min(plan_memory(wanted(POCKET, options=way)).peak() for way in OFFLOADED)
    room = least * 1.05 / USABLE
    fit = fitting(POCKET, "fast", room)
    assert fit is not None and fit.options.offload == "blocks"
    blocks = fit.options.resident_blocks
    assert ROTATING <= blocks < POCKET.dit.num_layers
    one_more = msgspec.structs.replace(fit.options, resident_blocks=blocks + 1)
    assert plan_memory(wanted(POCKET, options=one_more)).peak() > room * USABLE


@pytest.mark.parametrize("options", [*WAYS, *OFFLOADED])
def test_the_flags_printed_are_flags_that_work(options: EngineOptions) -> None:
    parsed = parse(["serve", *shlex.split(flags_of(options))])
    assert isinstance(parsed, Serve)
    assert worker_settings(parsed.load).options == options


def test_doctor_prints_the_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dry runs are tested above; here only who is asked about and what is printed."""
    asked: list[tuple[str, str, str]] = []

    def need(preset: object, mode: str, size: tuple[int, int]) -> Need:
        name = getattr(preset, "name", "")
        asked.append((name, mode, f"{size[0]}x{size[1]}"))
        cards = {24: "no", 40: "--kv 8bit", 80: "yes", 141: "yes"}
        return Need(
            preset=name,
            mode=mode,
            size=f"{size[0]}x{size[1]}",
            weights=49.3,
            session=27.3,
            workspace=12.0,
            peak=88.6,
            cards=cards,
        )

    monkeypatch.setattr(fits, "need", need)
    assert main(["doctor", "--memory"]) == 0
    text = capsys.readouterr().out
    assert ("lingbot-world-fast", "8bit", "832x480") in asked
    assert not any(name.startswith(("pocket", "lingbot-world-base")) for name, *_ in asked)
    assert text.count("\n") == 2 * len(asked) + 5
    assert "| 49.3 | 27.3 | 12.0 | 88.6 |" in text and "| no | `--kv 8bit` | yes | yes |" in text
    assert main(["doctor", "--memory", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(asked) // 2


def test_the_cell_of_a_need_is_yes_no_or_flags() -> None:
    found = fits.need(POCKET, "fast")
    assert set(found.cards.values()) == {"yes"}
    assert found.peak == pytest.approx(found.weights + found.session + found.workspace, abs=0.02)
    assert as_markdown([found]).count("yes") == len(fits.CARDS)
    assert fits.CARDS[0] * GIB > 24e9
