"""Certificates: made once, kept as long as they serve, refused when they cannot."""

from __future__ import annotations

import os
import ssl
import stat
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from websockets.sync.client import connect

from tests.server.doors.exposed import exposed
from tests.server.doors.knocking import BOSS, LIVE, VISITOR
from worldline.core.errors import ConfigError
from worldline.server.doors import tls
from worldline.server.doors.tls import Certificate, certificate

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def made(folder: Path, now: datetime = NOW, host: str = "127.0.0.1") -> Certificate:
    return certificate("self-signed", host=host, now=now, folder=folder / "tls")


def test_it_names_this_machine_and_only_its_owner_can_read_the_key(tmp_path: Path) -> None:
    found = made(tmp_path)
    names = x509.load_pem_x509_certificate(found.cert.read_bytes()).extensions
    listed = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "localhost" in listed.get_values_for_type(x509.DNSName)
    addresses = {str(a) for a in listed.get_values_for_type(x509.IPAddress)}
    assert {"127.0.0.1", "::1"} <= addresses
    if os.name == "posix":
        assert stat.S_IMODE(found.key.stat().st_mode) == 0o600
        assert stat.S_IMODE(found.key.parent.stat().st_mode) == 0o700
    assert sorted(p.name for p in found.key.parent.iterdir()) == ["cert.pem", "key.pem"]
    parts = found.fingerprint().split(":")
    assert (len(parts), {len(part) for part in parts}) == (32, {2})


def test_it_is_kept_until_it_would_end_or_lacks_a_name(tmp_path: Path) -> None:
    first = made(tmp_path).fingerprint()
    assert made(tmp_path, NOW + timedelta(days=300)).fingerprint() == first
    renewed = made(tmp_path, NOW + timedelta(days=390)).fingerprint()
    assert renewed != first
    named = made(tmp_path, NOW + timedelta(days=390), "world.example").fingerprint()
    assert named != renewed
    (tmp_path / "tls" / "key.pem").unlink()
    assert made(tmp_path, NOW + timedelta(days=390), "world.example").fingerprint() != named
    (tmp_path / "tls" / "cert.pem").write_text("torn")
    assert made(tmp_path).fingerprint()


def test_own_files_are_checked_at_the_start(tmp_path: Path) -> None:
    mine = made(tmp_path)
    other = made(tmp_path / "other")
    found = certificate(f"{mine.cert},{mine.key}", host="x", now=NOW)
    assert found == mine
    for option in (f"{mine.cert},{other.key}", f"{mine.key},{mine.cert}", "missing,missing"):
        with pytest.raises(ConfigError, match="cannot be used"):
            certificate(option, host="x", now=NOW)
    for option in ("", "yes", "cert.pem", "cert.pem,", ",key.pem"):
        with pytest.raises(ConfigError, match="--tls"):
            certificate(option, host="x", now=NOW)


def test_without_cryptography_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.x509", None)
    with pytest.raises(ConfigError, match="cryptography"):
        made(tmp_path)


def test_a_server_that_listens_everywhere_is_called_by_all_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tls, "_own_addresses", lambda: ["192.168.7.7"])
    assert "192.168.7.7" in tls.names_of("0.0.0.0")
    assert "192.168.7.7" not in tls.names_of("127.0.0.1")
    assert "world.example" in tls.names_of("world.example")


def test_https_and_wss(tmp_path: Path) -> None:
    found = made(tmp_path, datetime.now(UTC))
    trust = ssl.create_default_context(cafile=str(found.cert))
    with exposed(certificate=found) as server:
        url = f"https://127.0.0.1:{server.port}"
        assert httpx.get(f"{url}/healthz", verify=trust).status_code == 200
        protocols: Any = ["worldline.v1", f"bearer.{VISITOR}"]
        wss = f"wss://127.0.0.1:{server.port}{LIVE}"
        with connect(wss, subprotocols=protocols, ssl=trust) as connection:
            connection.send(msgspec.msgpack.encode({"type": "hello"}))
            answer = connection.recv()
            assert isinstance(answer, bytes)
            assert msgspec.msgpack.decode(answer)["type"] == "ready"
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{server.port}/healthz")


def test_the_administrators_port_is_encrypted_where_others_can_reach_it(tmp_path: Path) -> None:
    found = made(tmp_path, datetime.now(UTC))
    trust = ssl.create_default_context(cafile=str(found.cert))
    boss = {"Authorization": f"Bearer {BOSS}"}
    with exposed(certificate=found, admin=True, admin_host="0.0.0.0") as server:
        url = f"https://127.0.0.1:{server.admin}/metrics"
        assert httpx.get(url, verify=trust, headers=boss).status_code == 200
    with exposed(certificate=found, admin=True) as server:  # on loopback nobody listens in
        assert httpx.get(f"http://127.0.0.1:{server.admin}/metrics").status_code == 200
