"""Action tokens and strings."""

from __future__ import annotations

import numpy as np
import pytest

from worldline.core.actions import MAX_FRAMES, check_actions, key_states, parse_action_string
from worldline.core.errors import ControlError


def test_an_action_string_holds_keys_for_frames() -> None:
    keys = parse_action_string("wl-2,none-1,K-1")
    np.testing.assert_array_equal(keys.wasd, [[1, 0, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4])
    np.testing.assert_array_equal(keys.ijkl, [[0, 0, 0, 1], [0, 0, 0, 1], [0] * 4, [0, 0, 1, 0]])
    assert keys.wasd.dtype == keys.ijkl.dtype == np.float32


def test_full_width_commas_spaces_and_capitals_are_read() -> None:
    got = parse_action_string(" W-3 , IW-1，None-5 ")
    want = parse_action_string("w-3,iw-1,none-5")
    np.testing.assert_array_equal(got.wasd, want.wasd)
    np.testing.assert_array_equal(got.ijkl, want.ijkl)


NO_ITEM = ["", " ", "w", "w-", "-3", "w-3,", ",w-3", "w-3;a-2", "w-3 a-2", "w--3"]
NO_COUNT = ["w-0", "w-1.5", "w-²", "w-9999999999", f"w-{MAX_FRAMES},a-1"]
NO_KEY = ["x-3", "up-3", "wx-2", "nonew-2"]


@pytest.mark.parametrize("text", [*NO_ITEM, *NO_COUNT, *NO_KEY])
def test_a_malformed_action_string_is_refused(text: str) -> None:
    with pytest.raises(ControlError):
        parse_action_string(text)


def test_the_error_shows_the_form_and_the_item() -> None:
    with pytest.raises(ControlError) as caught:
        parse_action_string("w-3,oops")
    assert "w-10" in str(caught.value)
    assert "oops" in str(caught.value)


def test_key_states_follow_the_order_of_the_keys_asked_for() -> None:
    frames = [("w", "l"), (), ("d",)]
    np.testing.assert_array_equal(
        key_states(frames, "wasd"), [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]]
    )
    assert key_states([], "wasd").shape == (0, 4)


def test_unknown_tokens_are_named() -> None:
    assert check_actions(["w", "w", "i"]) == {"w", "i"}
    with pytest.raises(ControlError) as caught:
        check_actions(["w", "jump", "attack"])
    assert "'attack', 'jump'" in str(caught.value)
