"""A real PostgreSQL on a free loopback port, with a password, that tests may stop and bring back.

`with postgres.server() as server:` skips with a reason where Debian's binaries are not there. PostgreSQL refuses to run
as root: it is run as Debian's user `postgres` then.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.brokers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 60
USER, PASSWORD, DATABASE = "fleet", "a %secret", "postgres"
QUOTED_PASSWORD = "a%20%25secret"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """One server and where it keeps its data."""

    folder: Path
    port: int
    binaries: Path

    def url(self, *, database: str = DATABASE, password: str = QUOTED_PASSWORD) -> str:
        """Return what `[rollouts] journal` would say."""
        return f"postgresql://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "-w", "-t", str(_PATIENCE_S), "-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """Stop it, also under connections; nothing where it doesn't run."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self._run("pg_ctl", "-w", "-t", str(_PATIENCE_S), "-m", "immediate", "stop")

    def execute(self, statement: str, *, database: str = DATABASE) -> str:
        """Run one statement as the server's owner; return what psql prints."""
        arguments = ["psql", "-X", "-A", "-t", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        environment = {**os.environ, "PGPASSWORD": PASSWORD}
        done = subprocess.run(
            [str(self.binaries / arguments[0]), *arguments[1:], "-c", statement],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
        return done.stdout.strip()

    def _run(self, name: str, *arguments: str) -> None:
        _run([str(self.binaries / name), "-D", str(self.folder / "data"), *arguments], self.folder)


@contextlib.contextmanager
def server() -> Iterator[Postgres]:
    """Run a server for the time of a `with` block."""
    binaries = _binaries()
    # Not pytest's folder: whoever else the server runs as must not be able to look into that.
    folder = Path(tempfile.mkdtemp(prefix="tflotilla-postgres-"))
    found = Postgres(folder=folder, port=free_port(), binaries=binaries)
    try:
        (folder / "password").write_text(PASSWORD)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        options = ["-U", USER, "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync", "-E", "UTF8"]
        found._run("initdb", *options)
        found.start()
        yield found
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            found.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    if not folders:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return folders[0]


def _run(command: list[str], folder: Path) -> None:
    user = "postgres" if os.geteuid() == 0 else None
    subprocess.run(
        command,
        cwd=folder,
        user=user,
        group=user,
        check=True,
        timeout=2 * _PATIENCE_S,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
