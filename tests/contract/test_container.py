"""Dockerfile and compose.yaml without Docker: linted, and true to the command line and the tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract import tree
from worldline import __version__
from worldline.cli.main import parse
from worldline.cli.options import Serve
from worldline.cli.settings import server_config
from worldline.core.config import ServerConfig

DOCKERFILE = tree.ROOT / "Dockerfile"
COMPOSE = tree.ROOT / "compose.yaml"
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def instructions() -> list[tuple[str, str]]:
    """Every instruction of the Dockerfile, joined over its lines."""
    text = DOCKERFILE.read_text(encoding="utf-8")
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text))
    lines = [line for line in joined.splitlines() if line.strip()]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def all_of(kind: str) -> list[str]:
    return [rest for name, rest in instructions() if name == kind]


def service() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]["server"]


def command_line(words: list[str]) -> Serve:
    """The options a container is started with, with the defaults of its variables."""
    options = parse([VARIABLE.sub(lambda found: found[2], word) for word in words])
    assert isinstance(options, Serve)
    return options


@pytest.mark.skipif(sys.platform != "linux", reason="hadolint's wheel is for Linux")
def test_the_dockerfile_has_no_findings() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None, "hadolint is missing: make setup"
    done = subprocess.run(
        [hadolint, "--format", "json", DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == []


def test_the_image_runs_as_nobody_in_particular() -> None:
    (user,) = all_of("USER")
    assert int(user) >= 1000
    assert all(":" in image and ":latest" not in image for image in all_of("FROM"))
    secrets = re.compile(r"(?i)(key|secret|token|password)\w*[=\s]\S{12,}")
    assert not secrets.search("\n".join(all_of("ENV") + all_of("ARG")))


def test_what_the_image_is_made_of_is_in_the_tree_and_let_through() -> None:
    lines = (tree.ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {
        source.removeprefix("./").rstrip("/")
        for rest in all_of("COPY")
        if "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == kept
    assert all((tree.ROOT / source).exists() for source in copied)
    for secret in ("**/*.pem", "**/*.key", "**/.env*"):
        assert lines.index(secret) > max(lines.index(f"!{name}") for name in kept)


def test_the_image_serves_as_it_says() -> None:
    (entry,), (command,) = all_of("ENTRYPOINT"), all_of("CMD")
    assert json.loads(entry) == ["worldline"]
    config = server_config(command_line(json.loads(command)))
    exposed = {int(port) for port in all_of("EXPOSE")[0].split()}
    assert exposed == {config.port, config.admin_port}
    assert config.host == "0.0.0.0"
    (health,) = all_of("HEALTHCHECK")
    assert f"127.0.0.1:{config.admin_port}/healthz" in health
    (stop,) = all_of("STOPSIGNAL")
    assert stop == "SIGTERM"


def test_compose_starts_what_there_is() -> None:
    server = service()
    options = command_line(server["command"])
    config = server_config(options)
    (port,) = server["ports"]
    address, outside, inside = VARIABLE.sub(lambda found: found[2], port).rsplit(":", 2)
    assert (address, int(outside), int(inside)) == ("127.0.0.1", 30000, config.port)
    secrets = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["secrets"]
    assert str(options.api_keys) == f"/run/secrets/{server['secrets'][0]}"
    assert set(server["secrets"]) == set(secrets)
    ignored = (tree.ROOT / ".gitignore").read_text().splitlines()
    assert all(f"/{Path(s['file']).parts[0]}/" in ignored for s in secrets.values())
    assert server["image"] == f"worldline:{__version__}"


def test_compose_gives_the_gpu_and_takes_the_rest() -> None:
    server = service()
    (device,) = server["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert server["read_only"] and server["init"]
    assert server["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in server["security_opt"]
    volume, _, place = server["volumes"][0].partition(":")
    assert volume in yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["volumes"]
    assert json.loads(all_of("VOLUME")[0]) == [place]


def test_there_is_time_and_memory_enough() -> None:
    server, config = service(), ServerConfig()
    grace = int(server["stop_grace_period"].removesuffix("s"))
    assert grace > config.drain_s + config.shutdown_s
    frames = 2 * 16 * 832 * 480 * 3  # two chunks of the largest preset a session
    seats = server_config(command_line(server["command"])).seats
    assert int(server["shm_size"].removesuffix("gb")) * 2**30 > 4 * seats * frames


def test_variables_are_those_the_documents_name() -> None:
    text = (tree.ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    named = {name for name, _ in VARIABLE.findall(COMPOSE.read_text(encoding="utf-8"))}
    assert named
    assert all(f"`{name}`" in text for name in named)
