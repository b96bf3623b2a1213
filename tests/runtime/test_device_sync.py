"""No waiting in the loop: a chunk makes the host wait for its frames and for nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from tests.runtime.counting_device import CountingDevice, Event, OnDevice, move
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.runtime import pipeline, transfer
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
FRAMES = Event("download", "_to_copy", waits=True)  # the one thing a chunk waits for


def on_device(options: EngineOptions = DEFAULT_OPTIONS) -> World:
    """A small world on the device, whose origin of time moves every few chunks."""
    components = tiny.world().components
    for module in (components.dit, components.vae):
        assert isinstance(module, torch.nn.Module)
        move(module)
    return World(components, options=options, reanchor_at=12)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> CountingDevice:
    """The device; its pinned memory is any memory."""
    monkeypatch.setattr(transfer, "pin", lambda host: host)
    return CountingDevice()


@pytest.mark.parametrize("options", [EngineOptions(), EngineOptions(recache=True, kv="8bit")])
def test_a_chunk_waits_for_its_frames_only(device: CountingDevice, options: EngineOptions) -> None:
    world = on_device(options)
    with device, world.start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
        world.shared.texts.get("a frozen lake at night")  # a prompt waits once, when it is encoded
        for i in range(9):
            if i == 3:  # the window is full and the buffers are there
                device.log.clear()
            prompt = "a frozen lake at night" if i == 5 else None
            session.step(WALK[i % 3], prompt=prompt, blend_chunks=2)
            session.prepare()
        assert session.state.anchor > 0
    assert device.waits == [FRAMES] * 6
    uploads = [event for event in device.log if event.kind == "upload"]
    assert len(uploads) > 10 and not any(event.waits for event in uploads)


def test_the_device_computes_what_the_cpu_does(device: CountingDevice) -> None:
    frames = []
    with tiny.world().start(tiny.picture(), tiny.PROMPT, 3) as session:
        frames += [session.step(controls).frames for controls in WALK]
    world = on_device()
    with device, world.start(tiny.picture(), tiny.PROMPT, 3) as session:
        for controls, expected in zip(WALK, frames, strict=True):
            off = session.step(controls).frames.astype(int) - expected
            assert np.abs(off).max() <= 1  # torch takes other kernels for a device it knows less
        assert all(isinstance(t, OnDevice) for t in session.state.kv.buffers())


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.sum() > 0),
        lambda x: float(x[0]),
        lambda x: x.cpu(),
        lambda x: x.to("cpu"),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: x.unique(),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: torch.ones(4, device=x.device) * torch.tensor([1.0, 2, 3, 4]).to(x.device),
    ],
)
def test_what_would_wait_is_seen(device: CountingDevice, wait: Callable[[Tensor], object]) -> None:
    with device:
        x = torch.arange(4.0, device="meta")
        assert device.log == []
        wait(x)
    assert device.waits


def test_what_does_not_wait_is_not_counted(device: CountingDevice) -> None:
    with device:
        x = torch.arange(4.0, device="meta")
        y = transfer.upload(torch.ones(4), x.device)
        transfer.upload_into(x, torch.zeros(4))
        assert isinstance(y, OnDevice)
        (x * 2 + y)[1:].mul_(3).softmax(0).to(torch.bfloat16)
        x.index_copy_(0, transfer.upload(torch.tensor([2]), x.device), y[:1])
    assert device.waits == []
    assert [event.kind for event in device.log] == ["upload"] * 3


def test_an_added_item_is_found(device: CountingDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    world = on_device()
    real = pipeline.to_x0

    def reads(x: Tensor, flow: Tensor, sigma: float) -> Tensor:
        return real(x, flow, sigma) * (1.0 if float(flow.abs().max()) >= 0 else 2.0)

    with device, world.start(tiny.picture(), tiny.PROMPT, 3) as session:
        session.step(WALK[0])
        device.log.clear()
        monkeypatch.setattr(pipeline, "to_x0", reads)
        session.step(WALK[0])
    assert [e.name for e in device.waits].count("_local_scalar_dense") == 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_itself_finds_nothing_to_wait_for() -> None:
    components = tiny.world().components
    for module in (components.dit, components.vae):
        assert isinstance(module, torch.nn.Module)
        module.to("cuda")
    with World(components).start(tiny.picture(), tiny.PROMPT, 3) as session, torch.no_grad():
        for i in range(5):
            session.step(WALK[i % 3])
        try:
            torch.cuda.set_sync_debug_mode("error")
            for i in range(3):
                clock = session.engine.clock()
                pipeline.next_chunk(session.engine, session.state, WALK[i], clock)
        finally:
            torch.cuda.set_sync_debug_mode("default")
