"""The lab's MQTT broker: an installed mosquitto, else the embedded one; loopback, one user, one password.

The keeper (`keep`) is a process that owns the broker and takes it down with itself. The embedded broker (amqtt) speaks
only MQTT 3.1.1 and may lose queued messages when a client reconnects: good for a look, never for data.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tflotilla.host.lab import outfit
from tflotilla.host.lab.processes import MARK
from tflotilla.host.lab.reaper import Children, end_of
from tflotilla.shared.contract.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["mosquitto", "embedded"]
USERNAME = "tflotilla"
PASSWORD = "mqtt-password"  # noqa: S105 - the name of a file
_LOOPBACK = "127.0.0.1"
#: Debian puts daemons where users' PATH does not look.
_SEARCHED = ("/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/sbin")
_ATTEMPTS = 5
_POLL_S = 0.01
_START_TIMEOUT_S = 15.0
_GRACE_S = 2.0
#: mosquitto's own count; the password is random and 24 characters long, so this is not what protects it.
_PBKDF2_ITERATIONS = 101


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSpec:
    """What the keeper is told. Port 0 is any free one."""

    lab_id: str
    folder: str
    kind: Kind
    port: int = 0


def find_mosquitto() -> str | None:
    """Return the mosquitto program of this machine."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *_SEARCHED))
    return shutil.which("mosquitto", path=path)


def choose(wanted: Literal["auto", "mosquitto", "embedded"]) -> Kind:
    """Return the kind of broker that this machine can run.

    Raises:
        BrokerError: mosquitto is asked for and not installed.

    """
    if wanted == "embedded":
        return "embedded"
    if find_mosquitto() is not None:
        return "mosquitto"
    if wanted == "mosquitto":
        message = "mosquitto is not installed (Debian: apt install mosquitto); `--broker embedded` needs nothing"
        raise BrokerError(message)
    return "embedded"


def write_password(folder: Path) -> Path:
    """Make the lab's password and return the file that holds it (mode 0600)."""
    folder.mkdir(parents=True)
    file = folder / PASSWORD
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(secrets.token_urlsafe(18) + "\n")
    return file


def keep(spec: BrokerSpec, ready: Callable[[int], None], lifeline: int | None) -> None:
    """Run the broker until SIGTERM, or until whoever holds the other end of `lifeline` is gone.

    Raises:
        BrokerError: it does not start.

    """
    asyncio.run(_keep(spec, ready, lifeline))


async def _keep(spec: BrokerSpec, ready: Callable[[int], None], lifeline: int | None) -> None:
    stop = end_of(lifeline)
    if spec.kind == "embedded":
        from tflotilla.host.lab import embedded_broker

        password = (Path(spec.folder) / PASSWORD).read_text().strip()
        async with embedded_broker.serving(_free_port(spec), username=USERNAME, password=password) as port:
            ready(port)
            await stop.wait()
        return
    await _keep_mosquitto(spec, ready, stop)


async def _keep_mosquitto(spec: BrokerSpec, ready: Callable[[int], None], stop: asyncio.Event) -> None:
    children = Children()
    try:
        for _ in range(_ATTEMPTS):
            port = _free_port(spec)
            exited = _start_mosquitto(spec, children, port)
            if await _listens(port, exited):
                # A broker that dies by itself takes its keeper along.
                exited.add_done_callback(lambda _: stop.set())
                ready(port)
                await stop.wait()
                return
            # Somebody took the free port between our look and mosquitto's: try another.
        message = f"mosquitto does not start; its words are in {spec.folder}/mosquitto.log"
        raise BrokerError(message)
    finally:
        await children.end(grace_s=_GRACE_S)


def _start_mosquitto(spec: BrokerSpec, children: Children, port: int) -> asyncio.Future[int]:
    folder = Path(spec.folder)
    password = (folder / PASSWORD).read_text().strip()
    users = folder / "mosquitto.passwd"
    users.write_text(password_line(USERNAME, password) + "\n")
    users.chmod(0o600)
    configuration = folder / "mosquitto.conf"
    configuration.write_text(
        "\n".join(
            (
                f"listener {port} {_LOOPBACK}",
                "allow_anonymous false",
                f"password_file {users}",
                "persistence false",
                # Started by root it would become another user, who can't read this folder.
                f"user {outfit.user()}",
                "max_queued_messages 0",
                "log_dest stderr",
                "",
            )
        )
    )
    environment = {"PATH": os.defpath, MARK: f"{spec.lab_id}/"}
    mosquitto = find_mosquitto()
    if mosquitto is None:
        message = "mosquitto is not installed any more"
        raise BrokerError(message)
    with (folder / "mosquitto.log").open("ab") as log:
        _, exited = children.start(
            [mosquitto, "-c", str(configuration)],
            streams=(subprocess.DEVNULL, log.fileno(), log.fileno()),
            environment=environment,
            folder=folder,
        )
    return exited


async def _listens(port: int, exited: asyncio.Future[int]) -> bool:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_TIMEOUT_S
    while not exited.done() and loop.time() < deadline:
        try:
            _, writer = await asyncio.open_connection(_LOOPBACK, port)
        except OSError:
            await asyncio.sleep(_POLL_S)
            continue
        writer.close()
        return not exited.done()
    return False


def password_line(username: str, password: str) -> str:
    """Return a line of mosquitto 2's password_file: PBKDF2 with SHA-512, marked `$7$`."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PBKDF2_ITERATIONS)
    fields = (base64.b64encode(salt).decode(), base64.b64encode(digest).decode())
    return f"{username}:$7${_PBKDF2_ITERATIONS}${fields[0]}${fields[1]}"


def _free_port(spec: BrokerSpec) -> int:
    if spec.port:
        return spec.port
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
