"""UMT5 text states: the encoder network, its tokenizer, and the two joined.

`UMT5Encoder` has the parameter names of the published `models_t5_umt5-xxl-enc-bf16.pth`.
`UMT5Text` is what the engine holds: prompts in, states of fixed length out, zero after the last
token. The rows of zeros are part of the model's input (they are embedded and attended like any
other), while the pad tokens themselves must never be seen by the encoder.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldline.core.errors import CheckpointError, ConfigError, PromptError, ShapeError
from worldline.models.wan.clean import clean_prompt
from worldline.models.wan.params import UMT5Params
from worldline.ops.norm import RMSNorm


def position_buckets(queries: int, keys: int, *, buckets: int, max_distance: int) -> Tensor:
    """Bucket of every (query, key) distance: `[S_query, S_key]` int64 (T5, bidirectional).

    Half the buckets are for keys to the right. In each half, short distances have a bucket each and
    longer ones share buckets of logarithmic width up to `max_distance`.
    """
    distance = torch.arange(keys)[None, :] - torch.arange(queries)[:, None]  # S S
    half = buckets // 2
    exact = half // 2
    right = (distance > 0).long() * half
    distance = distance.abs()
    ratio = torch.log(distance.clamp_min(1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (ratio * (half - exact)).long()).clamp_max(half - 1)
    return right + torch.where(distance < exact, distance, far)


class PositionBias(nn.Module):
    """Learned attention bias per head and distance bucket; every layer has its own."""

    def __init__(self, params: UMT5Params) -> None:
        super().__init__()
        self.embedding = nn.Embedding(params.num_buckets, params.num_heads)

    def forward(self, buckets: Tensor) -> Tensor:
        """Map `buckets [S, S]` to `[1, N, S, S]`."""
        return self.embedding(buckets).permute(2, 0, 1).unsqueeze(0)  # 1 N S S


class SelfAttention(nn.Module):
    """T5 attention: no bias on the projections and no scaling of the scores."""

    def __init__(self, params: UMT5Params) -> None:
        super().__init__()
        self.num_heads = params.num_heads
        self.q = nn.Linear(params.dim, params.dim_attn, bias=False)
        self.k = nn.Linear(params.dim, params.dim_attn, bias=False)
        self.v = nn.Linear(params.dim, params.dim_attn, bias=False)
        self.o = nn.Linear(params.dim_attn, params.dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Attend `x [B, S, C]` to itself under `bias [B or 1, N, S, S]`."""
        heads = (self.num_heads, -1)
        q, k, v = (
            layer(x).unflatten(-1, heads).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )  # B N S D
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)  # B N S D
        return self.o(out.transpose(1, 2).flatten(2))  # B S C


class GatedFeedForward(nn.Module):
    """Feed-forward layer whose hidden units are gated by a tanh-GELU branch."""

    def __init__(self, params: UMT5Params) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(params.dim, params.dim_ffn, bias=False), nn.GELU(approximate="tanh")
        )
        self.fc1 = nn.Linear(params.dim, params.dim_ffn, bias=False)
        self.fc2 = nn.Linear(params.dim_ffn, params.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x [B, S, C]` to the same shape."""
        return self.fc2(self.fc1(x) * self.gate(x))


class UMT5Block(nn.Module):
    """Attention and feed-forward, each normed before and added back."""

    def __init__(self, params: UMT5Params) -> None:
        super().__init__()
        self.norm1 = RMSNorm(params.dim, params.eps)
        self.attn = SelfAttention(params)
        self.norm2 = RMSNorm(params.dim, params.eps)
        self.ffn = GatedFeedForward(params)
        self.pos_embedding = PositionBias(params)

    def forward(self, x: Tensor, buckets: Tensor, hidden: Tensor) -> Tensor:
        """Map `x [B, S, C]`; `buckets [S, S]`, `hidden [B, 1, 1, S]` is added to the scores."""
        # Contiguous: fused kernels want the scores of a query side by side.
        bias = (self.pos_embedding(buckets) + hidden).contiguous()  # B N S S
        x = x + self.attn(self.norm1(x), bias)
        return x + self.ffn(self.norm2(x))


class UMT5Encoder(nn.Module):
    """UMT5 encoder with relative position biases in every layer."""

    def __init__(self, params: UMT5Params) -> None:
        super().__init__()
        self.params = params
        self.token_embedding = nn.Embedding(params.vocab, params.dim)
        self.blocks = nn.ModuleList(UMT5Block(params) for _ in range(params.num_layers))
        self.norm = RMSNorm(params.dim, params.eps)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Encode `ids [B, S]` int64 to states `[B, S, C]`.

        `mask [B, S]` is 1 for tokens and 0 for padding, which no token sees; states at padding are
        meaningless. Raises ShapeError when the two differ in shape or hold no token.
        """
        if ids.ndim != 2 or ids.shape != mask.shape or ids.numel() == 0:
            raise ShapeError(
                "token ids do not fit the text encoder",
                expected="ids and mask [B, S] of one shape, not empty",
                got=f"ids {list(ids.shape)}, mask {list(mask.shape)}",
            )
        x = self.token_embedding(ids)  # B S C
        tokens = ids.shape[1]
        buckets = position_buckets(
            tokens,
            tokens,
            buckets=self.params.num_buckets,
            max_distance=self.params.max_distance,
        ).to(ids.device)
        hidden = torch.zeros(mask.shape, dtype=x.dtype, device=x.device)
        hidden = hidden.masked_fill(mask == 0, torch.finfo(x.dtype).min)[:, None, None, :]
        for block in self.blocks:
            x = block(x, buckets, hidden)
        return self.norm(x)


class Tokenizer(Protocol):
    """Text to token ids."""

    def __call__(self, text: str, max_length: int) -> list[int]:
        """Ids of `text` with the end-of-text id last, cut to `max_length`, without padding."""
        ...


class UMT5Text:
    """Prompts to text states: clean, tokenise, encode, zero after the last token."""

    def __init__(self, encoder: UMT5Encoder, tokenizer: Tokenizer, text_len: int) -> None:
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.text_len = text_len

    @property
    def text_dim(self) -> int:
        """Width of a text state."""
        return self.encoder.params.dim

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Encode `prompts` to `[B, S=text_len, text_dim]` on the encoder's device and in its dtype.

        Tokens beyond `text_len` are cut off. Each prompt is encoded by itself and without padding:
        its states do not depend on the others, and masked padding would only cost time. Raises
        PromptError when there is no prompt.
        """
        if not prompts:
            raise PromptError("no prompt to encode", expected="at least one", got=0)
        weight = self.encoder.token_embedding.weight
        shape = (len(prompts), self.text_len, self.text_dim)
        states = torch.zeros(shape, dtype=weight.dtype, device=weight.device)  # B S C
        for row, prompt in zip(states, prompts, strict=True):
            tokens = self.tokenizer(clean_prompt(prompt), self.text_len)
            ids = torch.tensor([tokens], dtype=torch.int64, device=weight.device)  # 1 S
            row[: len(tokens)] = self.encoder(ids, torch.ones_like(ids))[0]
        return states


class _HubTokenizer:
    """Tokenizer of a local folder, read by transformers."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)

    def __call__(self, text: str, max_length: int) -> list[int]:
        """See `Tokenizer`."""
        coded = self._tokenizer(
            text, add_special_tokens=True, truncation=True, max_length=max_length
        )
        return list(coded["input_ids"])


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Load UMT5's tokenizer from a local folder, such as `google/umt5-xxl` of a checkpoint.

    Raises ConfigError when transformers (extra `models`) is not installed and CheckpointError when
    the folder holds no tokenizer.
    """
    folder = Path(folder)
    if importlib.util.find_spec("transformers") is None:
        raise ConfigError(
            "the text encoder of this model needs transformers",
            expected='pip install "worldline[models]"',
            got="not installed",
        )
    if not folder.is_dir():
        raise CheckpointError("no tokenizer folder", expected="a local folder", got=folder)
    try:
        return _HubTokenizer(folder)
    # A damaged file surfaces as whatever the two libraries trip over, down to a bare Exception.
    except Exception as error:
        raise CheckpointError(
            "tokenizer cannot be read", expected="tokenizer.json or spiece.model", got=error
        ) from error
