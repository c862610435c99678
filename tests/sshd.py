"""A real OpenSSH server on a free loopback port: a board of its own, for tests that must not believe a fake.

It runs as the current user, with a host key, a HOME and a PATH of its own; `python3` on that PATH is the base
interpreter, never the workspace's. A relay stands in front of it, which can cut and throttle connections.

    @pytest.fixture
    def board(tmp_path: Path) -> Iterator[Sshd]:
        with running(tmp_path / "board") as sshd:
            yield sshd

What it does NOT do: separate users, devices or process spaces; a board here is a HOME.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEADLINE_S = 30.0
_LOOPBACK = "127.0.0.1"
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def binary() -> str:
    """Return sshd's absolute path (it insists on one), or skip the calling test."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("sshd is not on this machine (Debian: apt install openssh-server)")
    return found


def generate_key(path: Path, kind: str = "ed25519") -> Path:
    """Make an unencrypted key pair with ssh-keygen; return the private key's path."""
    path.unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


@dataclass(slots=True, kw_only=True)
class Relay:
    """A TCP relay to one port. Every figure is in bytes from the client towards the server."""

    target_port: int
    port: int = 0
    forwarded_bytes: int = 0
    connections: int = 0
    #: Cut a connection that begins from now on once it has carried that much (None: never); lifted after the first cut.
    #: One that is still saying goodbye has carried more than that already, and must not use the cut up.
    cut_after_bytes: int | None = None
    rate_bytes_per_s: float | None = None
    _listener: socket.socket | None = None
    _live: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self._listener = socket.create_server((_LOOPBACK, self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuse new connections and cut the live ones: the board is off."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        """Cut every live connection."""
        with self._lock:
            live, self._live = self._live, []
        for connection in live:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _address = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((_LOOPBACK, self.target_port), timeout=_DEADLINE_S)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        with self._lock:
            self._live += [client, server]
            self.connections += 1
        carried = 0
        cut_after = self.cut_after_bytes
        with client, server:
            while True:
                ready, _writable, _failed = select.select([client, server], [], [])
                for source in ready:
                    try:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        (server if source is client else client).sendall(data)
                    except OSError:
                        return
                    if source is client:
                        carried += len(data)
                        self.forwarded_bytes += len(data)
                        if self.rate_bytes_per_s is not None:
                            time.sleep(len(data) / self.rate_bytes_per_s)
                        if cut_after is not None and self.cut_after_bytes is not None and carried >= cut_after:
                            self.cut_after_bytes = None
                            return


@dataclass(slots=True, kw_only=True)
class Sshd:
    """A running server; connect to `host`:`port` as `user` with `client_key`."""

    folder: Path
    #: The board's HOME.
    home: Path
    #: In front of the board's PATH; tests put stand-in programs here.
    bin: Path
    host_key: Path
    client_key: Path
    relay: Relay
    host: str = _LOOPBACK
    #: More host keys, offered from the next start on.
    extra_host_keys: list[Path] = field(default_factory=list)
    #: The board's PATH behind `bin`; takes effect at the next start.
    system_path: str = _SYSTEM_PATH
    user: str = field(default_factory=getpass.getuser)
    #: What sshd's command begins with: it may run in namespaces.
    inside: tuple[str, ...] = ()
    _process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        """The port to connect to (the relay's)."""
        return self.relay.port

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, `SHA256:…`, as ssh-keygen shows it."""
        command = ["ssh-keygen", "-l", "-f", f"{self.host_key}.pub"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[1]

    @property
    def log(self) -> str:
        """What sshd wrote so far."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def start(self) -> None:
        """Start sshd and the relay, and wait until it answers."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
        with socket.create_server((_LOOPBACK, 0)) as probe:
            self.relay.target_port = probe.getsockname()[1]
        config = self.folder / "sshd_config"
        config.write_text(self._config())
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.inside, binary(), "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((_LOOPBACK, self.relay.target_port), 5) as try_:
                if try_.recv(4) == b"SSH-":
                    break
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"sshd did not start: {self.log}")
            time.sleep(0.02)
        self.relay.start()

    def stop(self) -> None:
        """Turn the board off: nobody listens, connections break. What runs on the board goes on."""
        self.relay.stop()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_DEADLINE_S)
            self._process = None

    def change_host_key(self) -> None:
        """Become another machine at the same address."""
        self.stop()
        generate_key(self.host_key)
        self.start()

    def limit_file_size(self, size_bytes: int) -> None:
        """Let no file of this board grow beyond a size, for whoever logs in from now on: a disk that fills up."""
        if self._process is None:
            pytest.fail("the board is off")
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size_bytes, size_bytes))

    def restart(self) -> None:
        """Be off and on again, at the same address."""
        self.stop()
        self.start()

    def kill_processes(self) -> None:
        """Kill what still runs on this board: whatever has its HOME."""
        mark = f"HOME={self.home}".encode()
        deadline = time.monotonic() + _DEADLINE_S
        while pids := [pid for pid in _pids() if mark in _environment(pid).split(b"\0")]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                pytest.fail(f"processes {pids} of {self.home} survive SIGKILL")
            time.sleep(0.02)

    def _config(self) -> str:
        lines = [
            f"ListenAddress {_LOOPBACK}:{self.relay.target_port}",
            *(f"HostKey {key}" for key in (self.host_key, *self.extra_host_keys)),
            f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
            f"SetEnv HOME={self.home} PATH={self.bin}:{self.system_path}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PrintMotd no",
            "MaxStartups 200",
            "LogLevel VERBOSE",
            "Subsystem sftp internal-sftp",
        ]
        return "\n".join(lines) + "\n"


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def base_interpreter() -> Path:
    """Return the interpreter that this environment was made from: what a board would have as python3."""
    return Path(getattr(sys, "_base_executable", sys.executable))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    """Run a board below `folder` (made if absent; its path must hold no spaces) until the context ends."""
    binary()
    home, programs = folder / "home", folder / "bin"
    home.mkdir(parents=True)
    programs.mkdir()
    (programs / "python3").symlink_to(base_interpreter())
    client_key = generate_key(folder / "client_key")
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    sshd = Sshd(
        folder=folder,
        home=home,
        bin=programs,
        host_key=generate_key(folder / "host_key"),
        client_key=client_key,
        relay=Relay(target_port=0),
    )
    try:
        sshd.start()
        yield sshd
    finally:
        sshd.stop()
        sshd.kill_processes()
