"""Architecture numbers of the pocket world's own parts; the weights file carries the same ones."""

from __future__ import annotations

import msgspec


class PocketVAEParams(msgspec.Struct, frozen=True, kw_only=True):
    """Widths of the autoencoder; both networks work on grids of 1/8 of the picture and finer."""

    latent_channels: int
    encoder: tuple[int, int]  # channels at 1/4 and 1/8 of the picture
    decoder: tuple[int, int, int]  # channels at 1/8, 1/4 and 1/2 of the picture
    blocks: int  # residual blocks per decoder level and at the encoder's 1/8 level


class PocketTextParams(msgspec.Struct, frozen=True, kw_only=True):
    """The word list (lower case, fixed order: its index is the row of the table) and widths."""

    words: tuple[str, ...]
    text_len: int
    text_dim: int


POCKET_VAE = PocketVAEParams(latent_channels=16, encoder=(64, 96), decoder=(160, 96, 64), blocks=2)

# Every word of the recipe's captions (recipes/pocket/scenes.py) but the smallest ones; the order
# is that of the rows in the weights file, so it changes only together with the weights.
_WORDS = (
    "air among ball block blue bright clear cold columns court dark day daylight desert distant "
    "dusk evening field fog fresh frozen gold golden grass grassy green grid icy lantern "
    "lanterns lawn light marble meadow mountains night noon orange pedestal pillars pine pines "
    "plain plaza purple red rows sand sandy shadows sky snow snowy soft sphere square stone "
    "stones summer sunny sunset tall trees twilight violet warm white winter silver midnight pale "
    "moon moonlit moonlight black yellow autumn rust brown honey afternoon dry october low sun "
    "fallen leaves crimson morning glittering sunrise calm turquoise lagoon vermilion gates high "
    "tide sea breeze hills water lake shallow arches spring still ripples rose plum dawn pink "
    "daybreak before "
)

POCKET_TEXT = PocketTextParams(words=tuple(_WORDS.split()), text_len=16, text_dim=64)
