"""Certificates: somebody's own files, or one that signs itself.

`self-signed` needs the package `cryptography` (extra `tls`; WebRTC brings it along). Not the
openssl command: Windows has none, and this way the key is made here and written once, to a file
that only its owner can read. The certificate is kept, so that a browser's exception for it outlives
a restart, and made anew when it would end soon or lacks an address of this machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import ipaddress
import os
import socket
import ssl
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from worldline.core.errors import ConfigError

SELF_SIGNED: Final = "self-signed"
CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; 1.3 has only good ones
VALID: Final = timedelta(days=397)  # the longest that browsers take from anybody
RENEW: Final = timedelta(days=14)
_NAME: Final = "worldline, self-signed"
_DOCUMENTATION: Final = "192.0.2.1"  # routed like any address far away, and nobody's (RFC 5737)


class Certificate(NamedTuple):
    """Files of a certificate chain and its key, both PEM."""

    cert: Path
    key: Path

    def fingerprint(self) -> str:
        """SHA-256 of the certificate, as browsers show it."""
        der = ssl.PEM_cert_to_DER_cert(_first_pem(self.cert.read_text(encoding="ascii")))
        return hashlib.sha256(der).digest().hex(":").upper()


def certificate(
    option: str, *, host: str, now: datetime, folder: Path | None = None
) -> Certificate:
    """The certificate that `--tls` asks for: `self-signed`, or `CERT,KEY`.

    `folder` is where a self-signed one is kept, by default in the user's cache. Raises: ConfigError
    when files cannot be used, or `cryptography` is missing.
    """
    if option == SELF_SIGNED:
        return _self_signed(folder or default_folder(), names=names_of(host), now=now)
    cert, comma, key = option.partition(",")
    if not (cert and comma and key):
        raise ConfigError("--tls cannot be read", expected="self-signed or CERT,KEY", got=option)
    found = Certificate(Path(cert), Path(key))
    _check(found)
    return found


def default_folder() -> Path:
    """Where a self-signed certificate is kept: in the user's cache, as all we keep."""
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    home = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return home / "worldline" / "tls"


def names_of(host: str) -> tuple[str, ...]:
    """Names and addresses by which this machine may be called when `host` is listened on."""
    names = ["localhost", "127.0.0.1", "::1", socket.gethostname()]
    if host in ("0.0.0.0", "::"):
        names += [f"{socket.gethostname()}.local", *_own_addresses()]
    else:
        names.append(host)
    return tuple(dict.fromkeys(name for name in names if name))


def _own_addresses() -> list[str]:
    """The address that leads outside; nothing is sent to learn it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_DOCUMENTATION, 9))
        return [probe.getsockname()[0]]
    return []


def _self_signed(folder: Path, *, names: Sequence[str], now: datetime) -> Certificate:
    x509 = _cryptography("x509")
    kept = Certificate(folder / "cert.pem", folder / "key.pem")
    with contextlib.suppress(OSError, ValueError):
        found = x509.load_pem_x509_certificate(kept.cert.read_bytes())
        lasts = found.not_valid_before_utc <= now < found.not_valid_after_utc - RENEW
        if lasts and set(names) <= _names_in(found, x509) and kept.key.is_file():
            _check(kept)
            return kept
    try:
        _make(kept, names, now=now)
    except OSError as error:
        raise ConfigError("the certificate cannot be kept", got=f"{folder}: {error}") from None
    return kept


def _make(kept: Certificate, names: Sequence[str], *, now: datetime) -> None:
    x509, ec = _cryptography("x509"), _cryptography("hazmat.primitives.asymmetric.ec")
    hashes = _cryptography("hazmat.primitives.hashes")
    coding = _cryptography("hazmat.primitives.serialization")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, _NAME)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for clocks that are behind
        .not_valid_after(now + VALID - timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general(n, x509) for n in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(coding.Encoding.PEM, coding.PrivateFormat.PKCS8, coding.NoEncryption())
    kept.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write(kept.key, pem)
    _write(kept.cert, signed.public_bytes(coding.Encoding.PEM))


def _write(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    draft.replace(path)


def _general(name: str, x509: Any) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_in(found: Any, x509: Any) -> set[str]:
    extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = extension.get_values_for_type(x509.IPAddress)
    return {*extension.get_values_for_type(x509.DNSName), *(str(a) for a in addresses)}


def _check(found: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(found.cert, found.key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            "the certificate or its key cannot be used",
            expected="PEM files that belong together",
            got=f"{found.cert}, {found.key}: {error.strerror or error}",
        ) from None


def _cryptography(name: str) -> Any:
    try:
        return importlib.import_module(f"cryptography.{name}")
    except ImportError:
        raise ConfigError(
            "a self-signed certificate needs the package cryptography",
            expected='pip install "worldline[tls]", or --tls CERT,KEY',
        ) from None


def _first_pem(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
