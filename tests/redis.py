"""A real Redis on a free loopback port, that tests may stop, kill, freeze and bring back, empty or not.

`with redis.server(tmp_path) as server:` skips with a reason where redis-server is not installed. The port stays the
same over `kill()` and `start()`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.brokers import free_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "secret-of-redis"
_PATIENCE_S = 30.0


@dataclass(kw_only=True)
class Redis:
    """One server; it forgets everything when it ends."""

    folder: Path
    port: int
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What `[rollouts] broker` would say."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, or start again on the same port, and wait until it takes connections."""
        command = [_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD]
        command += ["--save", "", "--appendonly", "no", "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: _listens(self.port), "redis to listen")

    def kill(self) -> None:
        """End it as a power cut does (SIGKILL)."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=_PATIENCE_S)
            self._process = None


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Redis]:
    """Run a server for the time of a `with` block."""
    _binary()
    folder.mkdir(parents=True, exist_ok=True)
    found = Redis(folder=folder, port=free_port())
    found.start()
    try:
        yield found
    finally:
        found.kill()


def _binary() -> str:
    found = shutil.which("redis-server", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
