"""Which devices serve: what the options stand for, and what is refused before anything starts."""

from __future__ import annotations

import pytest

from worldline.cli.fleet import Wish, fleet
from worldline.core.errors import ConfigError
from worldline.runtime.protocol import WorkerSettings


@pytest.mark.parametrize(
    ("wish", "device", "groups"),
    [
        (Wish(), "auto", [["auto"]]),
        (Wish(device="cuda:1"), "cuda:1", [["cuda:1"]]),
        (Wish("0,1,2,3"), "auto", [["cuda:0"], ["cuda:1"], ["cuda:2"], ["cuda:3"]]),
        (Wish("0,1,2,3", sp=4), "auto", [["cuda:0", "cuda:1", "cuda:2", "cuda:3"]]),
        (Wish("0,1,2,3", sp=2), "auto", [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (Wish("0,1,2,3", replicas=2), "auto", [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (Wish("3, cuda:1", replicas=2), "auto", [["cuda:3"], ["cuda:1"]]),
        (Wish("cpu,cpu"), "auto", [["cpu"], ["cpu"]]),
        (Wish("cpu,cpu", sp=2), "auto", [["cpu", "cpu"]]),
        (Wish(sp=2), "cpu", [["cpu", "cpu"]]),
        (Wish(sp=2), "auto", [["auto:0", "auto:1"]]),
        (Wish(sp=2, replicas=2), "cuda", [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (Wish("1"), "auto", [["cuda:1"]]),
        (Wish("0,1,2,3,4", own_vae=True), "auto", [[f"cuda:{i}" for i in range(5)]]),
        (Wish("0,1,2", sp=2, own_vae=True), "auto", [["cuda:0", "cuda:1", "cuda:2"]]),
        (Wish("0,1,2,3", sp=1, own_vae=True), "auto", [["cuda:0", "cuda:1"], ["cuda:2", "cuda:3"]]),
        (Wish("cpu,cpu", own_vae=True), "auto", [["cpu", "cpu"]]),
        (Wish(sp=2, own_vae=True), "cpu", [["cpu", "cpu", "cpu"]]),
    ],
)
def test_what_the_options_stand_for(wish: Wish, device: str, groups: list[list[str]]) -> None:
    assert [list(group) for group in fleet(wish, device=device).groups] == groups


@pytest.mark.parametrize(
    ("wish", "device", "said"),
    [
        (Wish("0,one"), "auto", "unreadable --devices"),
        (Wish(""), "auto", "unreadable --devices"),
        (Wish("0,,1"), "auto", "unreadable --devices"),
        (Wish("-1"), "auto", "unreadable --devices"),
        (Wish("0,1,2", sp=2), "auto", "do not come out even"),
        (Wish("0,1,2,3", sp=2, replicas=4), "auto", "got 4 devices for --sp 2 --replicas 4"),
        (Wish("0,1", replicas=4), "auto", "do not come out even"),
        (Wish(sp=0), "auto", "unusable --sp; expected 1 or more; got 0"),
        (Wish(replicas=-1), "auto", "unusable --replicas"),
        (Wish(sp=1000, replicas=1000), "cpu", "too many processes; expected at most 64"),
        (Wish(",".join(["cpu"] * 65)), "auto", "too many processes"),
        (Wish("0,1,2,3", sp=2, ring=2), "auto", "ring attention is not supported"),
        (Wish(ring=0), "auto", "ring attention is not supported"),
        (Wish("0,1", device="cuda:3"), "cuda:3", "say different things"),
        (Wish(sp=2), "cuda:3", "one device is not enough"),
        (Wish("0,0", sp=2), "auto", "cannot share a chunk"),
        (Wish("0", own_vae=True), "auto", "one more for each replica; got 1 devices for --vae own"),
        (Wish("0,1", sp=2, own_vae=True), "auto", "got 2 devices for --sp 2 --vae own"),
        (Wish("0,1,2", replicas=3, own_vae=True), "auto", "do not come out even"),
        (Wish("cpu,0", sp=2), "auto", "cannot share a chunk"),
    ],
)
def test_what_is_refused(wish: Wish, device: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fleet(wish, device=device)
    assert said in str(caught.value)


def test_the_settings_of_each_replica() -> None:
    base = WorkerSettings(model="pocket", device="auto", threads=1)
    assert fleet(Wish(), device="auto").settings(base) == [base]
    two = fleet(Wish("0,1,2,3", sp=2), device="auto").settings(base)
    assert [(one.device, one.devices, one.ranks) for one in two] == [
        ("cuda:0", ("cuda:0", "cuda:1"), 2),
        ("cuda:2", ("cuda:2", "cuda:3"), 2),
    ]
    assert [one.device_of(1) for one in two] == ["cuda:1", "cuda:3"]
    assert not any(one.own_vae for one in two)
    (apart,) = fleet(Wish("0,1,2", own_vae=True), device="auto").settings(base)
    assert apart.own_vae and apart.ranks == 3
    (alone,) = fleet(Wish("2"), device="auto").settings(base)
    assert (alone.device, alone.devices, alone.ranks) == ("cuda:2", (), 1)
