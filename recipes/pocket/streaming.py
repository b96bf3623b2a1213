"""Streaming generation of latents for judging and for training on roll-outs, many walks at once.

The same mathematics as the product's engine (ring of `WINDOW` frames, denoise passes, then a
context pass at time 0), written for batches of walks; frame positions are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor

from recipes.pocket.world_model import WINDOW, WorldModel
from worldline.models.lingbot.blocks import CameraModulation, TextKV
from worldline.ops.attention import attention

Sampler = tuple[float, ...]


SHIPPED: Sampler = (1.0, 0.9375, 0.8333, 0.625, 0.3571, 0.0)  # the pocket preset's steps


def euler_times(steps: int, shift: float = 5.0) -> Sampler:
    """Times 1 .. 0 of a shifted schedule, `steps + 1` values."""
    u = [1 - i / steps for i in range(steps + 1)]
    return tuple(shift * v / (1 + (shift - 1) * v) for v in u)


class _Memory:
    """Keys and values of the frames in the window; both an `Attend` and a `CacheWriter`."""

    def __init__(self, layers: int) -> None:
        self.frames: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(layers)]
        self.writing = False

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.writing:
            self.write(layer, k, v)
            past = self.frames[layer]
        else:
            past = [*self.frames[layer][-(WINDOW - 1) :], (k, v)]
        keys = torch.cat([frame[0] for frame in past], dim=1)
        values = torch.cat([frame[1] for frame in past], dim=1)
        return attention(q.to(values.dtype), keys, values)

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        self.frames[layer] = [*self.frames[layer][-(WINDOW - 1) :], (k, v)]


class Stream:
    """Walks generated latent by latent; `rows` are the prompts' table rows `[B, S]`."""

    def __init__(self, model: WorldModel, rows: Tensor) -> None:
        self.model = model
        self._memory = _Memory(len(model.dit.iter_blocks()))
        self._cross = self._texts(rows)
        self._frame = 0

    def say(self, rows: Tensor) -> None:
        """Another prompt from the next latent frame on; the memory stays, as in the engine."""
        self._cross = self._texts(rows)

    def step(
        self, y: Tensor, camera: Tensor, noise: Tensor, *, times: Sampler, renoise: bool = False
    ) -> Tensor:
        """Sample the next latent frame; inputs `[B, C, 1, h, w]`, result `[B, 16, 1, h, w]`.

        Nothing is remembered until `commit`. With `renoise` each step goes to x0 and back with
        fresh noise (DMD), seeded from the given noise; else Euler.
        """
        x, camera_terms = noise, self._camera(camera)
        generator = torch.Generator().manual_seed(int(noise.flatten()[0].abs().item() * 1e6))
        for now, after in pairwise(times):
            flow = self._flow(x, y, camera_terms, now)
            if renoise and after > 0:
                fresh = torch.randn(x.shape, generator=generator)
                x = (1 - after) * (x - now * flow) + after * fresh
            else:
                x = x + (after - now) * flow
        return x

    def commit(self, x0: Tensor, y: Tensor, camera: Tensor) -> None:
        """Context pass: remember `x0` (sampled or true) as the newest frame."""
        dit = self.model.dit
        self._memory.writing = True
        dit.write_cache(
            dit.patchify(torch.cat([x0, y], dim=1)),
            time=dit.embed_time(torch.zeros(len(x0))),
            rope=self._rope(x0),
            camera=self._camera(camera),
            cross=self._cross,
            writer=self._memory,
        )
        self._memory.writing = False
        self._frame += 1

    def _texts(self, rows: Tensor) -> list[TextKV]:
        return self.model.dit.cross_kv(self.model.dit.embed_text(self.model.text.embed(rows)))

    def _rope(self, x: Tensor):
        return self.model.dit.rope([self._frame], x.shape[-2] // 2, x.shape[-1] // 2)

    def _camera(self, camera: Tensor) -> list[CameraModulation]:
        """What the camera does to every block: the same for all passes over a frame."""
        return self.model.dit.camera_modulation(self.model.dit.embed_camera(camera))

    def _flow(self, x: Tensor, y: Tensor, camera: list[CameraModulation], now: float) -> Tensor:
        dit = self.model.dit
        time = dit.time_tables(dit.embed_time(torch.full((len(x),), now * 1000.0)))
        tokens = dit.run_blocks(
            dit.patchify(torch.cat([x, y], dim=1)),
            time=time,
            rope=self._rope(x),
            camera=camera,
            cross=self._cross,
            attend=self._memory,
        )
        return dit.project(tokens, time, (1, x.shape[-2] // 2, x.shape[-1] // 2))


@torch.inference_mode()
def generate(
    model: WorldModel,
    rows: Tensor,
    y: Tensor,
    camera: Tensor,
    *,
    times: Sampler,
    seed: int = 0,
    renoise: bool = False,
    truth: Tensor | None = None,
    later: Mapping[int, Tensor] | None = None,
) -> Tensor:
    """Latents `[B, 16, T, h, w]` of whole walks; with `truth` every frame sees the true past.

    `later` holds new prompts' rows by the latent frame from which they are in force.
    """
    stream, out = Stream(model, rows), []
    generator = torch.Generator().manual_seed(seed)
    for i in range(camera.shape[2]):
        if later and i in later:
            stream.say(later[i])
        part = y[:, :, i : i + 1], camera[:, :, i : i + 1]
        noise = torch.randn(part[0][:, 4:].shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            x0 = stream.step(*part, noise, times=times, renoise=renoise).float()
            stream.commit(x0 if truth is None else truth[:, :, i : i + 1], *part)
        out.append(x0)
    return torch.cat(out, dim=2)
