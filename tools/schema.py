#!/usr/bin/env python3
"""Write what is generated from the messages of `worldline.v1` (src/worldline/core/live).

    python tools/schema.py            # write docs/schema/*, web/client/src/protocol* and tables
    python tools/schema.py --check    # exit 1 when a committed file differs

tests/contract/test_schema.py runs the check.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: only its own folder would be searched
    sys.path.insert(0, str(ROOT))

from tools.schemas import documents, markdown, typescript  # noqa: E402


def generated(root: Path) -> Mapping[str, str]:
    """The text of every generated file by its path below the root; documents keep their prose."""
    return {
        "docs/schema/asyncapi.json": pretty(documents.asyncapi()),
        "docs/schema/worldline.v1.schema.json": pretty(documents.json_schema()),
        **typescript.render(),
        **markdown.render(root),
    }


def pretty(document: documents.Json) -> str:
    """JSON for reading and for diffs."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def different(root: Path) -> list[str]:
    """The files under `root` that are missing or not what the structs give."""
    return [
        name
        for name, text in generated(root).items()
        if not (path := root / name).is_file() or path.read_text(encoding="utf-8") != text
    ]


def write(root: Path) -> None:
    """Write all of them under `root`."""
    for name, text in generated(root).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write, or check; the exit status says whether the committed files are right."""
    parser = argparse.ArgumentParser(description="generate the schemas of worldline.v1")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 on a difference"
    )
    if not parser.parse_args(arguments).check:
        write(ROOT)
        return 0
    wrong = different(ROOT)
    for name in wrong:
        print(f"{name} is not what core/live gives; run python tools/schema.py", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
