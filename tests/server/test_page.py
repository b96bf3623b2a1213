"""The page and its gallery as files: always asked for again, never from outside, never a crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from worldline.server.page import STATIC, page_routes


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    folder = tmp_path / "gallery"
    folder.mkdir()
    (folder / "gallery.json").write_text("[]")
    (folder / "meadow.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


def client(static: Path, gallery: Path) -> TestClient:
    return TestClient(Starlette(routes=page_routes(static, gallery)))


def test_the_built_page_is_served_with_everything_it_names(gallery: Path) -> None:
    served = client(STATIC, gallery)
    page = served.get("/")
    assert page.status_code == 200
    assert '<div id="app">' in page.text
    for name in ("assets/app.js", "assets/index.css", "favicon.svg"):
        assert f'"./{name}"' in page.text
        assert served.get(f"/{name}").status_code == 200


def test_files_are_revalidated_and_typed(gallery: Path) -> None:
    served = client(STATIC, gallery)
    script = served.get("/assets/app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["cache-control"] == "no-cache"
    assert "default-src 'self'" in script.headers["content-security-policy"]
    again = served.get("/assets/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
    assert again.headers["cache-control"] == "no-cache"


def test_the_gallery_is_served_and_nothing_above_it(gallery: Path) -> None:
    served = client(STATIC, gallery)
    assert served.get("/gallery/gallery.json").json() == []
    assert served.get("/gallery/meadow.png").headers["content-type"] == "image/png"
    assert served.get("/gallery/../secret.txt").status_code == 404
    assert served.get("/gallery/%2e%2e/secret.txt").status_code == 404


def test_without_a_gallery_or_a_build_the_answers_say_so(tmp_path: Path) -> None:
    served = client(STATIC, tmp_path / "none")
    assert served.get("/gallery/gallery.json").json() == []
    bare = client(tmp_path, tmp_path / "none").get("/")
    assert bare.status_code == 404
    assert "make web" in bare.text
