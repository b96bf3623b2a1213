"""Requests that cannot be films: told at once, counted, and nothing is queued."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import FakeHandle, fake_info
from tests.server.films.filming import lot, picture
from worldline.core.config import ServerConfig, WorldInfo
from worldline.core.errors import InputError, WorldlineError
from worldline.server.doors.keys import Keyring, parse_keys
from worldline.server.films.film import chunks_for, frames_of
from worldline.server.films.multipart import parse_multipart
from worldline.server.films.reading import Asked, read_body, read_film

pytestmark = pytest.mark.anyio

DATA_URL = "data:image/png;base64," + base64.b64encode(picture()).decode()


def info(**changes: Any) -> WorldInfo:
    return msgspec.structs.replace(fake_info(), **changes)


def asked(**changes: Any) -> Asked:
    fields = {"prompt": "a red gate", "input_reference": DATA_URL} | changes
    return read_body("application/json", msgspec.json.encode(fields))


def read(world: WorldInfo | None = None, /, **changes: Any) -> Any:
    return read_film(asked(**changes), info=world or info(), config=ServerConfig()).wish


BAD: dict[str, dict[str, Any]] = {
    "no prompt": {"prompt": " "},
    "a prompt of another type": {"prompt": 5},
    "a long prompt": {"prompt": "x" * 5000},
    "another model": {"model": "sora-2"},
    "a field that there is not": {"second": 4},
    "no picture": {"input_reference": None},
    "a picture elsewhere": {"input_reference": "https://example.org/a.png"},
    "a picture on the disk": {"input_reference": "file:///etc/passwd"},
    "no base64": {"input_reference": "!!"},
    "no image": {"input_reference": base64.b64encode(b"hello").decode()},
    "a picture of another form": {"input_reference": [1]},
    "a map without a URL": {"input_reference": {"file_id": "f"}},
    "no size": {"size": "big"},
    "no length": {"seconds": 0},
    "a negative length": {"seconds": -1},
    "an endless one": {"seconds": 1e308},
    "a long one": {"seconds": 601},
    "many chunks": {"chunks": 10**9},
    "no chunks": {"chunks": 0},
    "two lengths": {"seconds": 4, "chunks": 2},
    "an endless path": {"actions": "w-99999999"},
    "no path": {"actions": "fly-3"},
    "two paths": {"actions": "w-4", "poses": [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]] * 5},
    "poses of another shape": {"poses": [[1, 2, 3]]},
    "one pose": {"poses": [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]]},
    "poses that are none": {"poses": [[0] * 12] * 5},
    "a rate of nothing": {"poses": [[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]] * 5, "rate": -1},
    "a seed of another type": {"seed": "x"},
    "a negative seed": {"seed": -1},
    "no steps": {"steps": 0},
    "many steps": {"steps": 5},
    "guidance": {"guidance": 5.0},
    "a negative prompt": {"negative_prompt": "grey"},
    "a solver": {"solver": "unipc"},
    "an adapter that there is not": {"loras": "ink:0.5"},
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_a_film_is_an_input_error(kind: str) -> None:
    with pytest.raises(InputError):
        read(**BAD[kind])


def test_what_each_model_takes() -> None:
    base = info(live=False, overlap=1, chunk=21, model="base")
    wish = read(base, guidance=5, negative_prompt="", solver="dpm++", steps=70)
    assert (wish.guidance, wish.negative_prompt, wish.solver) == (5.0, "", "dpm++")
    with pytest.raises(InputError):
        read(base, guidance=0.5)
    dressed = info(options=msgspec.structs.replace(info().options, loras=("ink=a.safetensors",)))
    assert read(dressed, loras="ink:0.5").loras == (("ink", 0.5),)
    assert read(dressed, loras="").loras == () and read(dressed).loras is None


@pytest.mark.parametrize("overlap", [0, 1])
@pytest.mark.parametrize("seconds", [0.01, 1.0, 3.9, 4.0, 60.0])
def test_a_film_is_as_long_as_asked_and_no_chunk_longer(seconds: float, overlap: int) -> None:
    model = info(overlap=overlap)
    chunks = chunks_for(seconds * model.fps, model)
    wanted = seconds * model.fps
    assert frames_of(chunks, model.chunk, overlap=overlap) >= wanted
    assert chunks == 1 or frames_of(chunks - 1, model.chunk, overlap=overlap) < wanted


def test_lengths() -> None:
    assert read(seconds="4").chunks == chunks_for(64, info())
    assert read().chunks == chunks_for(64, info())
    assert read(actions="w-24").chunks == chunks_for(25, info())
    pose = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    assert read(poses=[pose] * 25).chunks == 3


def form(*parts: bytes, boundary: bytes = b"xx") -> bytes:
    return b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts) + (
        b"--" + boundary + b"--\r\n"
    )


def part(name: str, value: bytes) -> bytes:
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value


def test_forms_are_read_to_the_byte() -> None:
    value = bytes(range(256)) + b"\r\n--x\r\n\r\n--\r\n-xx-"
    body = form(part("prompt", b"a gate"), part("input_reference", value))
    fields = parse_multipart('multipart/form-data; boundary="xx"', body)
    assert fields == {"prompt": b"a gate", "input_reference": value}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--xx",
        b"--xx--\r\n--xx--extra--",
        form(part("a", b"1"))[:-6],
        form(b"no head at all"),
        form(b"Content-Type: text/plain\r\n\r\nnobody"),
        form(part("a", b"1"), part("a", b"2")),
        form(b"X: " + b"y" * 9000 + b"\r\n\r\nlong"),
        form(*[part(f"f{i}", b"") for i in range(100)]),
    ],
)
def test_forms_that_are_none(body: bytes) -> None:
    with pytest.raises(InputError):
        read_body("multipart/form-data; boundary=xx", body)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"5", b"\xff", b'{"prompt": ' + b"[" * 10_000, b'{"prompt": null}']
)
def test_json_that_is_none(body: bytes) -> None:
    with pytest.raises(InputError):
        read_body("application/json", body)


@given(st.binary(max_size=300), st.sampled_from(["application/json", "multipart/form-data"]))
def test_no_body_breaks_the_reader(body: bytes, kind: str) -> None:
    try:
        read_body(f"{kind}; boundary=x", body)
    except WorldlineError as error:
        assert error.http_status == 400


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.binary(max_size=40)), max_size=6))
def test_no_form_breaks_the_reader(parts: list[tuple[str, bytes]]) -> None:
    body = form(*[part(name, value) for name, value in parts])
    try:
        found = parse_multipart("multipart/form-data; boundary=xx", body)
    except WorldlineError as error:
        assert error.http_status == 400
    else:
        assert len(found) <= len(parts)


async def test_a_refusal_is_told_in_both_forms_and_queues_nothing(tmp_path: Path) -> None:
    async with lot(tmp_path) as here:
        response = await here.post(seconds=0, chunks=None)
        body = response.json()
        assert response.status_code == 400
        assert body["code"] == body["error"]["code"] == "invalid_config"
        assert body["error"]["type"] == "invalid_request_error" and body["retryable"] is False
        assert (await here.client.get("/v1/videos")).json()["data"] == []
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
        metrics = (await here.client.get("/metrics")).text
        assert 'worldline_errors_total{code="invalid_config"} 1.0' in metrics


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/videos/nothing", "unknown_film"),
        ("/v1/videos/../../etc/passwd", None),
        ("/v1/videos/%2e%2e/content", "unknown_film"),
        ("/v1/videos?limit=0", "invalid_input"),
        ("/v1/videos?limit=101", "invalid_input"),
        ("/v1/videos?limit=x", "invalid_input"),
        ("/v1/videos?order=up", "invalid_input"),
    ],
)
async def test_paths_and_queries_that_are_none(path: str, code: str | None, tmp_path: Path) -> None:
    async with lot(tmp_path) as here:
        response = await here.client.get(path)
        assert response.status_code in (400, 404)
        assert code is None or response.json()["code"] == code


async def test_films_that_are_not_there_yet(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        handle.hold()
        film = (await here.ask(chunks=2))["id"]
        found = await here.client.get(f"/v1/videos/{film}/content")
        assert (found.status_code, found.json()["code"]) == (409, "film_not_ready")
        for number, status in (("0", 400), ("-1", 400), ("x", 400), ("9" * 30, 400)):
            response = await here.client.get(f"/v1/videos/{film}/frames/{number}")
            assert response.status_code == status, number
        handle.allow(1)
        await here.reaches(film, 1)
        assert (await here.client.get(f"/v1/videos/{film}/frames/8")).status_code == 200
        assert (await here.client.get(f"/v1/videos/{film}/frames/9")).status_code == 400
        unknown = await here.client.get(f"/v1/videos/{film}/content?variant=spritesheet")
        assert unknown.status_code == 400


async def test_a_body_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    async with lot(tmp_path, max_message_bytes=10_000, max_body_bytes=1000) as here:
        assert (await here.post(picture=b"x" * 20_000)).status_code == 413
        assert (await here.post(picture=b"x" * 5000)).status_code == 400  # read, and no picture
        other = await here.client.post("/v1/videos/x/cancel", content=b"x" * 5000)
        assert other.status_code == 413


async def test_clients_have_their_share_and_see_their_own(tmp_path: Path) -> None:
    people = {"ann": "", "bob": "", "eve": ":admin"}
    lines = [f"{name}:{name[0] * 20}{role}" for name, role in people.items()]
    keys = Keyring(parse_keys(lines, "test"))
    handle = FakeHandle()

    def header(letter: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {letter * 20}"}

    async with lot(
        tmp_path, handle, keyring=keys, headers=header("a"), films_per_client=2, max_films_waiting=3
    ) as here:
        handle.hold()
        mine = [(await here.ask(chunks=1))["id"] for _ in range(2)]
        refused = await here.post(chunks=1)
        assert (refused.status_code, refused.json()["code"]) == (429, "client_limit")
        here.client.headers.update(header("b"))
        for method, path in (("GET", ""), ("GET", "/content"), ("POST", "/cancel"), ("DELETE", "")):
            response = await here.client.request(method, f"/v1/videos/{mine[0]}{path}")
            assert (response.status_code, response.json()["code"]) == (404, "unknown_film")
        assert (await here.client.get("/v1/videos")).json()["data"] == []
        await here.ask(chunks=1)
        full = await here.post(chunks=1)
        assert (full.status_code, full.json()["code"]) == (503, "capacity")
        here.client.headers.update(header("e"))
        assert len((await here.client.get("/v1/videos")).json()["data"]) == 3
        here.client.headers.pop("Authorization")
        assert (await here.client.get("/v1/videos")).status_code == 401
        here.client.headers.update(header("a"))
        handle.allow(10)
        assert [(await here.ended(id))["status"] for id in mine] == ["completed"] * 2


async def test_films_are_forgotten_when_they_are_old_or_too_much(tmp_path: Path) -> None:
    async with lot(tmp_path, film_keep_s=100.0) as here:
        now = here.studio.now() - 1000
        here.studio.now = lambda: now
        film = await here.ended((await here.ask(chunks=1))["id"])
        assert film["expires_at"] == pytest.approx(film["completed_at"] + 100, abs=1)
        here.studio.now = lambda: now + 101
        assert (await here.client.get(f"/v1/videos/{film['id']}")).status_code == 404
        await here.ended((await here.ask(chunks=1))["id"])
        assert not (tmp_path / film["id"]).exists()
    async with lot(tmp_path, max_films_bytes=film["bytes"] + 1) as here:
        other = await here.ended((await here.ask(chunks=1, seed=1))["id"])
        left = {other["id"]}
        await here.until(lambda: {one.name for one in tmp_path.iterdir() if one.is_dir()} == left)


async def test_a_server_without_films_says_so(tmp_path: Path) -> None:
    from tests.server.conftest import running
    from tests.server.test_reports import get

    async with running(ServerConfig(), FakeHandle()) as rig:
        await rig.warm()
        response = await get(rig, "/v1/videos")
        assert (response.status_code, response.json()["code"]) == (404, "no_films")
