"""A small numba ray caster for the pocket worlds: `Renderer(scene).frame(c2w)` -> uint8 picture.

One ray per pixel, then four more where neighbouring pixels see different surfaces (adaptive 2x2
supersampling). Rays walk the grid of cells and test the few primitives of each; no randomness, so
the same pose gives the same bits. Single-threaded on purpose: run several processes instead.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recipes.pocket.scenes import CELL, EYE, PERIOD, RIDGE_POINTS, Scene, arrays
from worldline.core.camera import DEFAULT_INTRINSICS, scale_intrinsics

FACETS = 8.0  # sides of a cylinder or cone: the low-poly look
FAR = 25.0  # metres; objects are gone there
FADE = 17.0  # metres; from here on objects melt into what is behind them


@njit(cache=True, fastmath=True)
def _facet(nx: float, nz: float) -> tuple[float, float, int]:
    """The normal of the flat side in which direction (nx, nz) lies, and the side's number."""
    step = 2 * np.pi / FACETS
    side = np.floor(np.arctan2(nx, nz) / step)
    angle = (side + 0.5) * step
    return np.sin(angle), np.cos(angle), int(side) + 8


@njit(cache=True, fastmath=True)
def _hit_round(p, ox, oy, oz, d, best):
    """Cylinder or cone around a vertical axis: (t, nx, ny, nz, side); t = best when missed."""
    radius, top, bottom = p[3], p[4], p[5]
    slope = radius / (bottom - top) if p[0] == 4.0 else 0.0
    px, pz = ox - p[1], oz - p[2]
    # radius at height y: `radius` for a cylinder, slope * (y - top) for a cone
    k0 = slope * (oy - top) if p[0] == 4.0 else radius
    k1 = slope * d[1]
    a = d[0] * d[0] + d[2] * d[2] - k1 * k1
    b = px * d[0] + pz * d[2] - k0 * k1
    c = px * px + pz * pz - k0 * k0
    disc = b * b - a * c
    if disc <= 0.0 or abs(a) < 1e-9:
        return best, 0.0, 0.0, 0.0, 0
    root = np.sqrt(disc)
    for sign in (-1.0, 1.0):
        t = (-b + sign * root) / a
        y = oy + t * d[1]
        if 1e-3 < t < best and top <= y <= bottom:
            nx, nz, side = _facet(px + t * d[0], pz + t * d[2])
            scale = 1.0 / np.sqrt(1.0 + slope * slope)
            return t, nx * scale, -slope * scale, nz * scale, side
    return best, 0.0, 0.0, 0.0, 0


@njit(cache=True, fastmath=True)
def _hit_box(p, ox, oy, oz, d, best):
    """Axis-aligned box: (t, nx, ny, nz, side); t = best when missed."""
    near, far, axis = -1e9, 1e9, 0
    lo = (p[1] - p[3], p[4], p[2] - p[9])
    hi = (p[1] + p[3], p[5], p[2] + p[9])
    o = (ox, oy, oz)
    for i in range(3):
        inv = 1.0 / d[i] if abs(d[i]) > 1e-9 else 1e9
        t0, t1 = (lo[i] - o[i]) * inv, (hi[i] - o[i]) * inv
        if t0 > t1:
            t0, t1 = t1, t0
        if t0 > near:
            near, axis = t0, i
        far = min(far, t1)
    if near > far or near < 1e-3 or near >= best:
        return best, 0.0, 0.0, 0.0, 0
    sign = -1.0 if d[axis] > 0 else 1.0
    side = axis * 2 + (1 if sign > 0 else 0)
    return near, sign * (axis == 0), sign * (axis == 1), sign * (axis == 2), side


@njit(cache=True, fastmath=True)
def _hit_sphere(p, ox, oy, oz, d, best):
    """Sphere between the heights top and bottom: (t, nx, ny, nz, side); t = best when missed."""
    px, py, pz = ox - p[1], oy - 0.5 * (p[4] + p[5]), oz - p[2]
    b = px * d[0] + py * d[1] + pz * d[2]
    c = px * px + py * py + pz * pz - p[3] * p[3]
    disc = b * b - c
    if disc <= 0.0:
        return best, 0.0, 0.0, 0.0, 0
    t = -b - np.sqrt(disc)
    if t < 1e-3 or t >= best:
        return best, 0.0, 0.0, 0.0, 0
    inv = 1.0 / p[3]
    return t, (px + t * d[0]) * inv, (py + t * d[1]) * inv, (pz + t * d[2]) * inv, 1


@njit(cache=True, fastmath=True)
def _sky(d, light, ridge, out):
    """Gradient, sun with glow and a low mountain silhouette; writes the colour, returns an id."""
    elevation = np.arcsin(-d[1])
    blend = min(1.0, max(0.0, elevation / 0.9)) ** 0.7
    glow = max(0.0, d[0] * light[6, 0] + d[1] * light[6, 1] + d[2] * light[6, 2])
    halo = 0.35 * glow**24
    disc = 1.0 if glow > 0.9965 else 0.0
    place = (np.arctan2(d[0], d[2]) / (2 * np.pi) % 1.0) * RIDGE_POINTS
    i = int(place)
    part = place - i
    height = ridge[i % RIDGE_POINTS] * (1 - part) + ridge[(i + 1) % RIDGE_POINTS] * part
    if elevation < height:
        shade = 0.55 + 0.2 * (
            1.0 if ridge[(i + 1) % RIDGE_POINTS] > ridge[i % RIDGE_POINTS] else 0.0
        )
        for c in range(3):
            out[c] = light[0, c] + shade * (light[5, c] - light[0, c])
        return 2 + i
    for c in range(3):
        base = light[0, c] + blend * (light[1, c] - light[0, c])
        base += halo * (light[2, c] - base)
        out[c] = base + disc * (light[2, c] - base)
    return 1 + 64 * int(disc)


@njit(cache=True, fastmath=True)
def _shadow(x, z, prims, light):
    """Soft blob shadow, drawn out away from the sun, of the object whose cell holds (x, z)."""
    ix, iz = int(np.floor(x / CELL)), int(np.floor(z / CELL))
    p = prims[(ix % 2) + 2 * (iz % 2), 0]
    if p[0] == 0.0:
        return 0.0
    lx, lz = x - (ix + 0.5) * CELL - p[1], z - (iz + 0.5) * CELL - p[2]
    norm = np.sqrt(light[6, 0] ** 2 + light[6, 2] ** 2) + 1e-6
    sx, sz = -light[6, 0] / norm, -light[6, 2] / norm
    along = min(1.6, max(0.0, lx * sx + lz * sz))
    dist = np.sqrt((lx - along * sx) ** 2 + (lz - along * sz) ** 2) / (
        prims[(ix % 2) + 2 * (iz % 2), :, 3].max() * 1.25
    )
    fade = 1.0 - 0.5 * along / 1.6
    return 0.38 * fade * np.exp(-(dist**4))


@njit(cache=True, fastmath=True)
def _march(ox, oy, oz, d, prims, limit):
    """Nearest object along a ray: (t, nx, ny, nz, id, cell, prim); t = limit when none."""
    best, nx, ny, nz, ident, cell, prim = limit, 0.0, 0.0, 0.0, 0, 0, 0
    ix, iz = int(np.floor(ox / CELL)), int(np.floor(oz / CELL))
    step_x, step_z = (1 if d[0] > 0 else -1), (1 if d[2] > 0 else -1)
    inv_x = 1.0 / d[0] if abs(d[0]) > 1e-9 else 1e9
    inv_z = 1.0 / d[2] if abs(d[2]) > 1e-9 else 1e9
    next_x = ((ix + (step_x > 0)) * CELL - ox) * inv_x
    next_z = ((iz + (step_z > 0)) * CELL - oz) * inv_z
    while True:
        which = (ix % 2) + 2 * (iz % 2)
        lx, lz = ox - (ix + 0.5) * CELL, oz - (iz + 0.5) * CELL
        for j in range(prims.shape[1]):
            p = prims[which, j]
            kind = p[0]
            if kind == 0.0:
                break
            if kind == 2.0:
                hit = _hit_box(p, lx, oy, lz, d, best)
            elif kind == 3.0:
                hit = _hit_sphere(p, lx, oy, lz, d, best)
            else:
                hit = _hit_round(p, lx, oy, lz, d, best)
            if hit[0] < best:
                best, nx, ny, nz = hit[0], hit[1], hit[2], hit[3]
                ident = 1000 + ((ix & 63) * 64 + (iz & 63)) * 128 + j * 24 + hit[4]
                cell, prim = which, j
        exit_t = min(next_x, next_z)
        if best <= exit_t or exit_t > limit:
            return best, nx, ny, nz, ident, cell, prim
        if next_x < next_z:
            ix += step_x
            next_x += CELL * abs(inv_x)
        else:
            iz += step_z
            next_z += CELL * abs(inv_z)


@njit(cache=True, fastmath=True)
def _shade(o, d, prims, light, ridge, tiles, top, out):
    """Colour of one ray into `out`; returns an id of the surface it hit."""
    ground = (EYE - o[1]) / d[1] if d[1] > 1e-6 else 1e9
    limit = min(ground, FAR)
    if d[1] < -1e-6:
        limit = min(limit, (top - o[1]) / d[1])  # above the tallest object only sky is left
    t, nx, ny, nz, ident, cell, prim = _march(o[0], o[1], o[2], d, prims, limit)
    if ident == 0:
        sky = _sky(d, light, ridge, out)
        if ground > 400.0:
            return sky
        t = ground
        x, z = o[0] + t * d[0], o[2] + t * d[2]
        tile_x, tile_z = int(np.floor(x / 4.0)), int(np.floor(z / 4.0))
        mix = tiles[tile_x % 4, tile_z % 4]
        dark = 1.0 - _shadow(x, z, prims, light) if t < 30.0 else 1.0
        ident = 100 + (tile_x & 15) * 16 + (tile_z & 15)
        fog = 1.0 - np.exp(-((t / light[7, 1]) ** 2))
        for c in range(3):
            colour = (light[3, c] + mix * (light[4, c] - light[3, c])) * dark
            out[c] = colour + fog * (light[0, c] - colour)
        return ident
    lit = max(0.0, nx * light[6, 0] + ny * light[6, 1] + nz * light[6, 2])
    shade = light[7, 0] + (1.0 - light[7, 0]) * lit * 1.25 + 0.08 * max(0.0, -ny)
    fog = 1.0 - np.exp(-((t / light[7, 1]) ** 2))
    melt = min(1.0, max(0.0, (t - FADE) / (FAR - FADE)))
    for c in range(3):
        out[c] = light[0, c]
    if melt > 0.0 and d[1] < 0.0:
        _sky(d, light, ridge, out)
    for c in range(3):
        colour = prims[cell, prim, 6 + c] * shade * (0.75 + 0.25 * light[2, c])
        colour += fog * (light[0, c] - colour)
        out[c] = colour + melt * (out[c] - colour)
    return ident


@njit(cache=True, fastmath=True)
def _direction(c2w, k, u, v, d):
    """World direction (unit) of the ray through picture point (u, v)."""
    x, y = (u - k[2]) / k[0], (v - k[3]) / k[1]
    n = 1.0 / np.sqrt(x * x + y * y + 1.0)
    for i in range(3):
        d[i] = (c2w[i, 0] * x + c2w[i, 1] * y + c2w[i, 2]) * n


@njit(cache=True, fastmath=True)
def _render(c2w, k, prims, light, ridge, tiles, out):
    """Fill `out` [H, W, 3] uint8: one ray per pixel, four more on edges between surfaces."""
    height, width = out.shape[0], out.shape[1]
    top = 0.0
    for cell in range(4):
        for j in range(prims.shape[1]):
            top = min(top, prims[cell, j, 4])
    o, d, rgb, total = c2w[:, 3].copy(), np.empty(3), np.empty(3), np.empty(3)
    ids = np.empty((height, width), np.int64)
    first = np.empty((height, width, 3), np.float32)
    for y in range(height):
        for x in range(width):
            _direction(c2w, k, x + 0.5, y + 0.5, d)
            ids[y, x] = _shade(o, d, prims, light, ridge, tiles, top, rgb)
            for c in range(3):
                first[y, x, c] = rgb[c]
    for y in range(height):
        for x in range(width):
            me = ids[y, x]
            edge = (x > 0 and ids[y, x - 1] != me) or (x + 1 < width and ids[y, x + 1] != me)
            edge = (
                edge or (y > 0 and ids[y - 1, x] != me) or (y + 1 < height and ids[y + 1, x] != me)
            )
            for c in range(3):
                total[c] = first[y, x, c]
            if edge:
                total[:] = 0.0
                for s in range(4):
                    _direction(c2w, k, x + 0.25 + 0.5 * (s % 2), y + 0.25 + 0.5 * (s // 2), d)
                    _shade(o, d, prims, light, ridge, tiles, top, rgb)
                    for c in range(3):
                        total[c] += 0.25 * rgb[c]
            for c in range(3):
                out[y, x, c] = np.uint8(min(255.0, max(0.0, total[c] * 255.0 + 0.5)))


class Renderer:
    """Renders one scene at one size with the product's intrinsics scaled to it."""

    def __init__(self, scene: Scene, width: int = 160, height: int = 96) -> None:
        self.scene = scene
        self.width, self.height = width, height
        self._arrays = arrays(scene)
        self._k = np.array(scale_intrinsics(DEFAULT_INTRINSICS, width, height), np.float64)

    def frame(self, c2w: np.ndarray) -> np.ndarray:
        """One picture `[H, W, 3]` uint8 from a camera pose `[4, 4]` in metres."""
        out = np.empty((self.height, self.width, 3), np.uint8)
        pose = np.ascontiguousarray(c2w[:3], np.float64).copy()
        pose[0, 3] %= PERIOD  # the world repeats: keep the numbers small
        pose[2, 3] %= PERIOD
        _render(pose, self._k, *self._arrays, out)
        return out
