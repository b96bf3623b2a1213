"""The pocket text encoder: words, padding, unknown words, the null row."""

from __future__ import annotations

import torch

from worldline.models.pocket.params import POCKET_TEXT, PocketTextParams
from worldline.models.pocket.text import PAD, PocketText

SMALL = PocketTextParams(words=("blue", "red", "snow"), text_len=4, text_dim=8)


def test_words_become_rows_in_order_and_once() -> None:
    text = PocketText(SMALL)
    assert text.rows(["Snow, RED snow!"]).tolist() == [[2, 1, PAD, PAD]]


def test_padding_is_zero_and_words_are_not() -> None:
    text = PocketText(SMALL)
    states = text.encode(["red snow", "blue"])
    assert states.shape == (2, 4, 8)
    assert torch.equal(states[0, 0], text.table[1])
    assert states[0, 2:].abs().max() == 0
    assert states[1, 0].abs().max() > 0


def test_unknown_words_do_no_harm() -> None:
    text = PocketText(SMALL)
    assert torch.equal(text.encode(["a photo of red qwerty snow"]), text.encode(["red snow"]))


def test_a_prompt_without_known_words_is_the_null_row() -> None:
    text = PocketText(SMALL)
    for prompt in ("", "   ", "日本語 🙂", "xyzzy"):
        states = text.encode([prompt])
        assert torch.equal(states[0, 0], text.table[len(SMALL.words)])
        assert states[0, 1:].abs().max() == 0


def test_long_prompts_are_cut() -> None:
    params = PocketTextParams(words=("a", "b", "c", "d", "e"), text_len=3, text_dim=2)
    assert PocketText(params).rows(["a b c d e"]).tolist() == [[0, 1, 2]]


def test_the_shipped_word_list_has_no_doubles() -> None:
    assert len(set(POCKET_TEXT.words)) == len(POCKET_TEXT.words)
    assert all(word == word.lower() and word.isalpha() for word in POCKET_TEXT.words)
