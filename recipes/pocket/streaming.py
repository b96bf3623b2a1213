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

Sampler = tuple[float, ...]


SHIPPED: Sampler = (1.0, 0.9375, 0.8333, 0.625, 0.3571, 0.0)  # the pocket preset's steps


def euler_times(steps: int, shift: float = 5.0) -> Sampler:
    """Times 1 .. 0 of a shifted schedule, `steps + 1` values."""
    u = [1 - i / steps for i in range(steps + 1)]
    return tuple(shift * v / (1 + (shift - 1) * v) for v in u)


class _Memory:
    """Keys and values of the frames in the window; both an `Attend` and a `CacheWriter`.

    The past lies in order at the front, the frame at work behind it. Keys lie the way their product
    with queries reads them, which makes that product several times faster on a CPU.
    """

    def __init__(self, layers: int) -> None:
        self._keys: list[Tensor | None] = [None] * layers  # [B, N, D, K] each
        self._values: list[Tensor | None] = [None] * layers  # [B, N, K, D] each
        self._past = 0  # frames in the window behind the one at work

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As every `Attend`: the past and the frame itself."""
        self.write(layer, k, v)
        keys, values = self._keys[layer], self._values[layer]
        assert keys is not None and values is not None, "written just now"
        upto = (self._past + 1) * k.shape[1]
        q = (q * q.shape[-1] ** -0.5).to(v.dtype).transpose(1, 2)  # B N L D
        weights = (q @ keys[..., :upto]).softmax(-1).to(v.dtype)
        return (weights @ values[:, :, :upto]).transpose(1, 2)

    def write(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Lay down the frame at work, over what an earlier pass has laid there."""
        size, tokens = v.transpose(1, 2).shape, v.shape[1]
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            keys = v.new_empty(size[0], size[1], size[3], WINDOW * tokens)
            values = v.new_empty(size[0], size[1], WINDOW * tokens, size[3])
            self._keys[layer], self._values[layer] = keys, values
        own = slice(self._past * tokens, (self._past + 1) * tokens)
        keys[..., own] = k.permute(0, 2, 3, 1)
        values[:, :, own] = v.transpose(1, 2)

    def keep(self) -> None:
        """The frame at work becomes the newest of the past; a full window drops its oldest."""
        if self._past < WINDOW - 1:
            self._past += 1
            return
        for keys, values in zip(self._keys, self._values, strict=True):
            assert keys is not None and values is not None, "nothing was written"
            tokens = keys.shape[-1] // WINDOW
            keys[..., :-tokens] = keys[..., tokens:].clone()
            values[:, :, :-tokens] = values[:, :, tokens:].clone()


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
        dit.write_cache(
            dit.patchify(torch.cat([x0, y], dim=1)),
            time=dit.embed_time(torch.zeros(len(x0))),
            rope=self._rope(x0),
            camera=self._camera(camera),
            cross=self._cross,
            writer=self._memory,
        )
        self._memory.keep()
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
