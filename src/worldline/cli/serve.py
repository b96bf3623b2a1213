"""`worldline serve` and `worldline play`: a worker process, and the server in this one.

The worker is started first: while it imports torch, this process imports what the server needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import signal
import socket
import sys
import threading
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from worldline.cli.fleet import Wish, fleet
from worldline.cli.loading import show_notice, worker_settings
from worldline.cli.options import Play, Serve
from worldline.cli.saved import load_for
from worldline.cli.settings import DEFAULT_PORT, keyring_of, server_config, to_terminal
from worldline.cli.workers import start_workers, supervise
from worldline.core.config import ServerConfig
from worldline.core.env import Env, read_env
from worldline.core.errors import ConfigError
from worldline.core.worldfile import load_world_file
from worldline.runtime.handle import EngineHandle
from worldline.runtime.protocol import WorkerSettings
from worldline.server.doors.keys import Keyring
from worldline.server.doors.tls import Certificate, certificate
from worldline.server.films.store import FilmStore
from worldline.server.logs import configure_logging

if TYPE_CHECKING:
    from worldline.server.warmup import Revivals

PORTS_TRIED = 20
# What the kernel holds for a reader that is slow: old pictures, which it must read before new ones.
UNSENT_BYTES = 128 * 1024
BACKLOG = 128
TERMINATED = 128 + signal.SIGTERM


def serve(options: Serve) -> int:
    """Run the command; returns the exit code."""
    env = read_env()
    configure_logging((env.log_level or "info").upper())
    return _serve(options, browser=False)


def play(options: Play) -> int:
    """Run the command; returns the exit code."""
    env = read_env()
    configure_logging((env.log_level or "warning").upper())
    if options.world is not None:
        load = load_for(load_world_file(options.world), options.load)
        options = dataclasses.replace(options, load=load)
    return _serve(options, browser=not options.no_browser and can_open_browser(env))


def _workers(options: Serve) -> list[WorkerSettings]:
    """What the worker of every replica loads. Raises: ConfigError."""
    base = worker_settings(options.load)
    wish = Wish(
        devices=options.devices,
        sp=options.sp,
        replicas=options.replicas,
        device=options.load.device,
        own_vae=options.vae == "own",
        ring=options.ring,
    )
    return fleet(wish, device=base.device).settings(base)


def _serve(options: Serve, *, browser: bool) -> int:
    config = server_config(options)
    keyring = keyring_of(options, config, os.environ, tell=to_terminal())
    signed = _certificate(config)
    settings = _workers(options)
    if options.seats is None:  # a seat for every replica, unless somebody has said how many
        config = msgspec.structs.replace(config, seats=max(config.seats, len(settings)))
    # As an exception, so that the worker is ended on the way out; uvicorn handles it while it runs.
    signal.signal(signal.SIGTERM, _terminate)
    with contextlib.ExitStack() as open_sockets:
        # A port of the file counts as asked for: only the default one may be another.
        wanted = None if config.port == DEFAULT_PORT and options.port is None else config.port
        listener = open_sockets.enter_context(bind(config.host, wanted))
        port = listener.getsockname()[1]
        config = msgspec.structs.replace(config, port=port)
        if wanted is None and port != DEFAULT_PORT:
            say(f"Port {DEFAULT_PORT} is taken; using {port}.")
        admin = None
        if config.admin_port is not None:
            admin = open_sockets.enter_context(bind(config.admin_host, config.admin_port))
        store = _film_store(config, open_sockets)
        workers = start_workers(settings, meanwhile=_import_server)
        from worldline.server.warmup import Revivals  # as all of the server: beside the worker

        revivals = Revivals()
        handle = supervise(workers, settings, on_restart=revivals.tell)
        try:
            show_notice(handle.info)
            listener.listen(BACKLOG)  # from here on the browser can connect, and waits
            announce(handle.info.model, page_address(config), browser=browser)
            if signed is not None:
                say(f"Certificate (SHA-256): {signed.fingerprint()}")
            doors = Doors(keyring, signed, admin, store)
            return _run(config, handle, listener, doors=doors, revivals=revivals)
        finally:
            handle.shutdown()


class Doors(NamedTuple):
    """What is decided about the doors before the server is made, and the folder of its films."""

    keyring: Keyring
    certificate: Certificate | None
    admin: socket.socket | None
    store: FilmStore | None


def _film_store(config: ServerConfig, closing: contextlib.ExitStack) -> FilmStore | None:
    if config.films_dir is None:
        return None
    store = FilmStore(Path(config.films_dir).expanduser())
    closing.callback(store.close)
    return store


def _certificate(config: ServerConfig) -> Certificate | None:
    if config.tls is None:
        return None
    return certificate(config.tls, host=config.host, now=datetime.now(UTC))


def _import_server() -> None:
    """Import what the server needs."""
    importlib.import_module("worldline.server.app")


def _run(
    config: ServerConfig,
    handle: EngineHandle,
    listener: socket.socket,
    *,
    doors: Doors,
    revivals: Revivals,
) -> int:
    from worldline.server.app import create_app
    from worldline.server.doors.admin import AdminDoor
    from worldline.server.serve import make_server

    app = create_app(config, handle, keyring=doors.keyring, revivals=revivals, store=doors.store)
    admin = (
        None
        if doors.admin is None
        else AdminDoor(app, doors.keyring, doors.admin, doors.certificate)
    )
    server = make_server(config, app, certificate=doors.certificate, admin=admin)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def bind(host: str, port: int | None) -> socket.socket:
    """A bound socket; without a port the default one, or the next free one after it.

    Raises: ConfigError for an address that is not ours or a port that is taken.
    """
    wanted = range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED) if port is None else [port]
    reason = "no port tried"
    for candidate in wanted:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":  # on Windows this option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # taken over by every connection
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
        try:
            listener.bind((host, candidate))
            return listener
        except OSError as error:
            listener.close()
            reason = error.strerror or str(error)
    tried = f"{wanted[0]}" if len(wanted) == 1 else f"{wanted[0]} to {wanted[-1]}"
    raise ConfigError(
        f"cannot listen on {host} port {tried}", expected="a free port", got=reason.lower()
    )


def page_address(config: ServerConfig) -> str:
    """The address of the page; of a server that listens everywhere, its local one.

    With a world to walk into, it leads there.
    """
    scheme = "http" if config.tls is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    name = f"[{host}]" if ":" in host else host
    place = "" if config.world_file is None else "#world"
    return f"{scheme}://{name}:{config.port}/{place}"


def announce(model: str, address: str, *, browser: bool) -> None:
    """Print the address on stdout and open it."""
    print(f"{model} is at {address} (Ctrl-C stops it)", flush=True)
    if browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()


def can_open_browser(env: Env) -> bool:
    """Whether a browser window can appear here; a text browser in this terminal is no use."""
    if not env.browser or "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(TERMINATED)
