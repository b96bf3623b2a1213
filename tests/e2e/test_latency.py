"""`worldline bench latency` on the page, with a browser of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.server.doors.exposed import exposed
from tests.server.doors.knocking import VISITOR
from worldline.bench.latency import PARTS, LatencyFigures

pytestmark = pytest.mark.browser
COMMAND = "import sys; from worldline.cli.main import main; sys.exit(main())"
KEPT_OR_NOT = (0, 1)  # a busy machine may be late, and says so by its exit code


def test_a_walk_is_measured_part_by_part(chromium_path: Path, address: str, tmp_path: Path) -> None:
    picture = tmp_path / "latency.png"
    options = ["--url", address, "--seconds", "8", "--picture", str(picture)]
    found = measured(options, WORLDLINE_CHROMIUM=str(chromium_path))
    assert found.total.count > 0 and set(found.parts) == set(PARTS)
    assert found.transport.count > 16
    whole = [part.count == found.total.count for part in found.parts.values()]
    if all(whole):  # every press has its parts, and they are all there is
        assert sum(part.mean for part in found.parts.values()) == pytest.approx(found.total.mean)
    assert picture.stat().st_size > 1000


def test_a_server_that_asks_for_a_key_is_measured(chromium_path: Path) -> None:
    with exposed() as server:
        options = ["--url", f"http://127.0.0.1:{server.port}", "--seconds", "1"]
        secret = {"WORLDLINE_CHROMIUM": str(chromium_path), "WORLDLINE_TOKEN": VISITOR}
        assert measured(options, **secret).transport.count > 0


def measured(options: list[str], **environ: str) -> LatencyFigures:
    """What the command says; it need not be in time."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "bench", "latency", "--json", *options],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in KEPT_OR_NOT, done.stderr
    found = msgspec.json.decode(done.stdout, type=LatencyFigures)
    assert found.kept == (done.returncode == 0)
    return found
