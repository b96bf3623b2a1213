"""The README's moving picture: `python -m recipes.pocket.preview` writes `docs/preview.webp`.

Walks through the shipped pocket model by the library API, as any program would call it: start
pictures and words from the packaged gallery, keys per latent frame, another prompt on the way.
The gallery holds what the weights know: walks that begin elsewhere are left out, and where the
other world is not in it the walk goes on under the first prompt. What is generated is only
enlarged; keys and prompt are drawn over it. Seeded, within `LIMIT` bytes.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import worldline
from worldline.models.pocket import params as pocket_params

GALLERY = Path(pocket_params.__file__).with_name("gallery")
OUT = Path(__file__).parents[2] / "docs" / "preview.webp"
LIMIT = 2_500_000  # bytes
SCALE = 4  # 640 x 384
FPS = 16
QUALITIES = (92, 87, 82, 74, 66, 58, 50, 42, 34)
SAMPLE = 12  # one of so many frames is encoded to choose the quality
WHITE, GLASS, DARK = (243, 239, 233, 255), (16, 17, 22, 150), (16, 17, 20, 255)
CAP, GAP, MARGIN = 26, 4, 14  # pixels of a key, between keys, to the border
ARROWS = {"i": "up", "j": "left", "k": "down", "l": "right"}


class Act(NamedTuple):
    """A walk from one start view of the gallery, and what it turns into on the way.

    A path is `keys-count` for so many latent frames, one after the other; no keys: standing still.
    """

    view: str
    path: str
    world: str
    on: str


class Shown(NamedTuple):
    """One generated picture `[96, 160, 3]`, the keys held and the newest prompt."""

    frame: NDArray[np.uint8]
    keys: str
    prompt: str


ACTS = (
    Act("Red columns at dusk", "w-9 wl-3 w-5", "night court", "w-4 wj-6 w-3"),
    Act("Gates in the lagoon", "-1 wa-9 wj-2 w-4", "rose lagoon", "w-3 l-7 wl-3 w-3"),
    Act("White columns on a meadow", "w-6 wj-4 w-4", "autumn meadow", "w-6 wl-4 d-5"),
    Act("Lanterns at twilight", "w-5 wj-4 w-5", "bright snow", "w-4 j-5 w-5"),
)


def keys_of(path: str) -> list[str]:
    """The keys held in each latent frame of a path."""
    legs = (leg.rsplit("-", 1) for leg in path.split())
    return [keys for keys, count in legs for _ in range(int(count))]


def gallery() -> list[dict[str, Any]]:
    """The entries of the packaged gallery: the worlds that the weights know."""
    return json.loads((GALLERY / "gallery.json").read_text())


def played() -> tuple[Act, ...]:
    """The acts whose start view is in the gallery."""
    views = {entry["name"] for entry in gallery()}
    return tuple(act for act in ACTS if act.view in views)


def walk(world: worldline.World, act: Act) -> Iterator[Shown]:
    """Walk one act with a session of its own."""
    entries = gallery()
    start = next(entry for entry in entries if entry["name"] == act.view)
    words = {entry["world"]: entry["prompt"] for entry in reversed(entries)}
    picture = np.asarray(Image.open(GALLERY / start["file"]).convert("RGB"))
    prompt = start["prompt"]
    after = words.get(act.world, prompt)
    with world.start(picture, prompt, seed=start["seed"]) as session:
        yield from (Shown(frame, "", prompt) for frame in session.step([[]]).frames)
        for keys in keys_of(act.path):
            yield from (Shown(frame, keys, prompt) for frame in session.step([keys]).frames)
        for keys in keys_of(act.on):
            chunk = session.step([keys], prompt=None if prompt == after else after)
            prompt = after
            yield from (Shown(frame, keys, prompt) for frame in chunk.frames)


def draw(shown: Shown) -> Image.Image:
    """The enlarged picture with keys and prompt over it."""
    height, width = shown.frame.shape[:2]
    size = (width * SCALE, height * SCALE)
    picture = Image.fromarray(shown.frame).resize(size, Image.Resampling.BICUBIC)
    over = Image.new("RGBA", size)
    pen = ImageDraw.Draw(over)
    _pad(pen, "wasd", shown.keys, left=MARGIN, bottom=size[1] - MARGIN)
    right = size[0] - MARGIN - 3 * CAP - 2 * GAP
    _pad(pen, "ijkl", shown.keys, left=right, bottom=size[1] - MARGIN)
    _words(pen, shown.prompt, size)
    return Image.alpha_composite(picture.convert("RGBA"), over).convert("RGB")


def _pad(pen: ImageDraw.ImageDraw, group: str, held: str, *, left: int, bottom: int) -> None:
    """Four keys in the shape of arrow keys: one above, three below."""
    font = ImageFont.load_default(13)
    top, *below = group
    places = [(top, 1, 0), *((key, i, 1) for i, key in enumerate(below))]
    for key, column, row in places:
        x = left + column * (CAP + GAP)
        y = bottom - (2 - row) * CAP - (1 - row) * GAP
        down = key in held
        pen.rounded_rectangle((x, y, x + CAP, y + CAP), 7, fill=WHITE if down else GLASS)
        middle, ink = (x + CAP / 2, y + CAP / 2), DARK if down else WHITE
        if key in ARROWS:
            pen.polygon(_arrow(ARROWS[key], middle), fill=ink)
        else:
            pen.text(middle, key.upper(), fill=ink, font=font, anchor="mm")


def _arrow(towards: str, middle: tuple[float, float]) -> list[tuple[float, float]]:
    """A small triangle around `middle`."""
    corners = {
        "up": ((0, -4), (5, 4), (-5, 4)),
        "down": ((0, 4), (5, -4), (-5, -4)),
        "left": ((-4, 0), (4, -5), (4, 5)),
        "right": ((4, 0), (-4, -5), (-4, 5)),
    }
    return [(middle[0] + x, middle[1] + y) for x, y in corners[towards]]


def _words(pen: ImageDraw.ImageDraw, prompt: str, size: tuple[int, int]) -> None:
    """The prompt between the keys, on as many lines as it needs."""
    font = ImageFont.load_default(13)
    lines = _balanced(prompt, font, size[0] - 2 * (MARGIN + 3 * CAP + 2 * GAP + 24))
    middle, base = size[0] / 2, size[1] - MARGIN - 9
    top = base - 18 * (len(lines) - 1)
    widest = max(font.getlength(line) for line in lines)
    box = (middle - widest / 2 - 12, top - 13, middle + widest / 2 + 12, base + 12)
    pen.rounded_rectangle(box, 13, fill=GLASS)
    for i, line in enumerate(lines):
        pen.text((middle, top + 18 * i), line, fill=WHITE, font=font, anchor="mm")


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _balanced(text: str, font: Font, room: float) -> list[str]:
    """`text` in as few lines as fit `room` pixels, and these about equally long."""
    lines = _wrapped(text, font, room)
    while len(tighter := _wrapped(text, font, room := room - 8)) == len(lines) and room > 0:
        lines = tighter
    return lines


def _wrapped(text: str, font: Font, room: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        fits = lines[-1] == "" or font.getlength(longer) <= room
        lines = [*lines[:-1], longer] if fits else [*lines, word]
    return lines


def encode(pictures: Sequence[Image.Image], *, limit: int = LIMIT) -> bytes:
    """An endless animated WebP of at most `limit` bytes, as good as fits."""
    for quality in QUALITIES:
        sample = sum(len(_webp([picture], quality)) for picture in pictures[::SAMPLE])
        if sample * SAMPLE > limit and quality != QUALITIES[-1]:
            continue  # stills are a little larger than frames of a film: a safe guess
        data = _webp(pictures, quality)
        if len(data) <= limit:
            return data
    raise ValueError(f"{len(pictures)} pictures do not fit {limit} bytes")


def _webp(pictures: Sequence[Image.Image], quality: int) -> bytes:
    file = io.BytesIO()
    times = [round(1000 * (i + 1) / FPS) - round(1000 * i / FPS) for i in range(len(pictures))]
    pictures[0].save(
        file,
        "WEBP",
        save_all=True,
        append_images=list(pictures[1:]),
        duration=times,
        loop=0,
        quality=quality,
        method=4,
    )
    return file.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--model", default="pocket", help="the packaged model or a weights file")
    parser.add_argument("--limit", type=int, default=LIMIT, help="bytes")
    args = parser.parse_args()
    began = time.monotonic()
    world = worldline.load(args.model)
    pictures = [draw(shown) for act in played() for shown in walk(world, act)]
    print(f"{len(pictures)} pictures after {time.monotonic() - began:.0f} s", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_bytes(encode(pictures, limit=args.limit))
    print(f"{args.out}: {args.out.stat().st_size} bytes, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
