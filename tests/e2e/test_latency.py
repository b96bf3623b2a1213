"""`worldline bench latency` on the page, with a browser of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from worldline.bench.latency import PARTS, LatencyFigures

pytestmark = pytest.mark.browser
COMMAND = "import sys; from worldline.cli.main import main; sys.exit(main())"
KEPT_OR_NOT = (0, 1)  # a busy machine may be late, and says so by its exit code


def test_a_walk_is_measured_part_by_part(chromium_path: Path, address: str, tmp_path: Path) -> None:
    picture = tmp_path / "latency.png"
    options = ["--url", address, "--seconds", "8", "--json", "--picture", str(picture)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "bench", "latency", *options],
        env=os.environ | {"WORLDLINE_CHROMIUM": str(chromium_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in KEPT_OR_NOT, done.stderr
    found = msgspec.json.decode(done.stdout, type=LatencyFigures)
    assert found.kept == (done.returncode == 0)
    assert found.total.count > 0 and set(found.parts) == set(PARTS)
    assert found.transport.count > 16
    whole = [part.count == found.total.count for part in found.parts.values()]
    if all(whole):  # every press has its parts, and they are all there is
        assert sum(part.mean for part in found.parts.values()) == pytest.approx(found.total.mean)
    assert picture.stat().st_size > 1000
