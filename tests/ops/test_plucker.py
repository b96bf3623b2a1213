"""Rays and their folding, against a loop over pixels; recordings are in tests/parity."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldline.core.errors import ShapeError
from worldline.ops.plucker import action_condition, camera_condition, fold_rays, plucker_rays

HEIGHT, WIDTH = 16, 24
K = torch.tensor([30.0, 20.0, 11.0, 7.5])


def poses() -> Tensor:
    """An identity, and a turn with a move."""
    c, s = math.cos(0.4), math.sin(0.4)
    turned = torch.tensor([[c, 0, s, 0.3], [0, 1, 0, -0.2], [-s, 0, c, 0.9], [0, 0, 0, 1]])
    return torch.stack([torch.eye(4), turned])


def ray(pose: Tensor, x: int, y: int) -> list[float]:
    """Origin and direction through the centre of one pixel, one number at a time."""
    fx, fy, cx, cy = K.tolist()
    local = ((x + 0.5 - cx) / fx, (y + 0.5 - cy) / fy, 1.0)
    length = math.sqrt(sum(value * value for value in local))
    rows = pose.tolist()
    turned = [sum(rows[i][j] * local[j] for j in range(3)) / length for i in range(3)]
    return [rows[i][3] for i in range(3)] + turned


def test_every_pixel_has_origin_then_unit_direction() -> None:
    rays = plucker_rays(poses(), K, HEIGHT, WIDTH)
    want = [[[ray(p, x, y) for x in range(WIDTH)] for y in range(HEIGHT)] for p in poses()]
    torch.testing.assert_close(rays, torch.tensor(want).permute(0, 3, 1, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(rays[:, 3:].norm(dim=1), torch.ones(2, HEIGHT, WIDTH))


def test_intrinsics_may_differ_by_frame() -> None:
    both = torch.stack([K, K * 2])
    rays = plucker_rays(poses(), both, HEIGHT, WIDTH)
    assert torch.equal(rays[0], plucker_rays(poses()[:1], K, HEIGHT, WIDTH)[0])
    assert torch.equal(rays[1], plucker_rays(poses()[1:], K * 2, HEIGHT, WIDTH)[0])


def test_folding_puts_the_pixel_of_a_cell_into_the_channel() -> None:
    rays = torch.arange(2 * 3 * HEIGHT * WIDTH).reshape(2, 3, HEIGHT, WIDTH)
    folded = fold_rays(rays)
    assert folded.shape == (1, 3 * 64, 2, HEIGHT // 8, WIDTH // 8)
    for c, t, y, x in [(0, 0, 0, 0), (1, 1, 3, 17), (2, 0, 15, 23), (2, 1, 9, 8)]:
        channel = c * 64 + (y % 8) * 8 + x % 8
        assert folded[0, channel, t, y // 8, x // 8] == rays[t, c, y, x]


def test_the_camera_condition_is_the_folded_rays() -> None:
    condition = camera_condition(poses(), K, HEIGHT, WIDTH)
    assert condition.shape == (1, 384, 2, 2, 3)
    assert torch.equal(condition, fold_rays(plucker_rays(poses(), K, HEIGHT, WIDTH)))


def test_the_action_condition_has_directions_then_keys() -> None:
    keys = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 1]])
    condition = action_condition(poses(), K, keys, HEIGHT, WIDTH)
    assert condition.shape == (1, 448, 2, 2, 3)
    camera = camera_condition(poses(), K, HEIGHT, WIDTH)
    assert torch.equal(condition[:, :192], camera[:, 192:])
    held = condition[0, 192:].reshape(4, 64, 2, 2, 3)
    assert torch.equal(held, keys.T.float()[:, None, :, None, None].expand_as(held))


def test_the_same_pose_gives_the_same_rays_wherever_the_clip_is_cut() -> None:
    whole = camera_condition(poses(), K, HEIGHT, WIDTH)
    assert torch.equal(whole[:, :, 1:], camera_condition(poses()[1:], K, HEIGHT, WIDTH))


@pytest.mark.parametrize(
    "call",
    [
        lambda: camera_condition(torch.eye(4), K, 8, 8),
        lambda: camera_condition(torch.zeros(2, 3, 4), K, 8, 8),
        lambda: camera_condition(torch.zeros(1, 4, 4, dtype=torch.int64), K, 8, 8),
        lambda: camera_condition(poses(), torch.ones(3), 8, 8),
        lambda: camera_condition(poses(), torch.ones(3, 4), 8, 8),
        lambda: camera_condition(poses(), K, 12, 8),
        lambda: fold_rays(torch.zeros(6, 8, 8)),
        lambda: action_condition(poses(), K, torch.zeros(3, 4), 8, 8),
        lambda: action_condition(poses(), K, torch.zeros(2, 8), 8, 8),
    ],
)
def test_wrong_shapes_are_refused_with_expected_and_got(call: Callable[[], Tensor]) -> None:
    with pytest.raises(ShapeError) as caught:
        call()
    assert caught.value.expected
    assert caught.value.got
