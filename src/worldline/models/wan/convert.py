"""Names of the published component layouts -> our names (those of the original `.pth` files).

Only the VAE and the text encoder are renamed in the diffusers folders; the transformer keeps its
original names there. A name no rule knows comes back unchanged, so that a loader lists it as
unexpected under the name the file uses. Behaviour: section 2 of the model facts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_Rule = tuple[re.Pattern[str], str]


def _rules(*pairs: tuple[str, str]) -> tuple[_Rule, ...]:
    return tuple((re.compile(pattern), name) for pattern, name in pairs)


# Inside a residual block, which stands under a number; `encoder.conv_in` does not.
_VAE_LAYERS = _rules(
    (r"(?<=\d)\.norm1\.", ".residual.0."),
    (r"(?<=\d)\.conv1\.", ".residual.2."),
    (r"(?<=\d)\.norm2\.", ".residual.3."),
    (r"(?<=\d)\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
_VAE_PLACES = _rules(
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"^(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"^(encoder|decoder)\.conv_out\.", r"\1.head.2."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.0\.", r"\1.middle.0."),
    (r"^(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.middle.1."),
    (r"^(encoder|decoder)\.mid_block\.resnets\.1\.", r"\1.middle.2."),
    (r"^encoder\.down_blocks\.", "encoder.downsamples."),
)
_UP_BLOCK = re.compile(r"^decoder\.up_blocks\.(\d+)\.(resnets|upsamplers)\.(\d+)\.")

_UMT5 = _rules(
    (r"^shared\.", "token_embedding."),
    # The tied copy some files carry.
    (r"^encoder\.embed_tokens\.", "token_embedding."),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (
        r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.",
        r"blocks.\1.pos_embedding.embedding.",
    ),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.", r"blocks.\1.attn."),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm\.", r"blocks.\1.norm1."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm\.", r"blocks.\1.norm2."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.", r"blocks.\1.ffn.gate.0."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.", r"blocks.\1.ffn.fc1."),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.", r"blocks.\1.ffn.fc2."),
)


def _apply(rules: Sequence[_Rule], key: str) -> str:
    """Rename by the first rule that fits."""
    for pattern, name in rules:
        renamed, count = pattern.subn(name, key, count=1)
        if count:
            return renamed
    return key


def vae_key_from_diffusers(key: str, *, num_res_blocks: int = 2) -> str:
    """Name in `Wan2.1_VAE.pth` of a tensor of diffusers' `AutoencoderKLWan`.

    The original numbers the decoder's blocks in one list: each level has `num_res_blocks + 1` of
    them and then its upsampler.
    """
    key = _apply(_VAE_LAYERS, key)
    up = _UP_BLOCK.match(key)
    if up is None:
        return _apply(_VAE_PLACES, key)
    level, kind, index = int(up[1]), up[2], int(up[3])
    per_level = num_res_blocks + 1
    offset = index if kind == "resnets" else per_level
    return f"decoder.upsamples.{level * (per_level + 1) + offset}.{key[up.end() :]}"


def umt5_key_from_hf(key: str) -> str:
    """Name in `models_t5_umt5-xxl-enc-bf16.pth` of a tensor of transformers' `UMT5EncoderModel`.

    `shared` and its tied copy `encoder.embed_tokens` both become `token_embedding`.
    """
    return _apply(_UMT5, key)
