"""Boards with addresses of their own: a network namespace, a link and a real sshd on port 22 each.

    with boards(tmp_path, count=50) as net:
        net.shape(3, rate_bit=64_000, loss=0.3)
        net.boards[3].host, .port, .user, .client_key, .fingerprint, .home

A board here is what `tests/sshd.py` has, behind a link that can be shaped; its processes are those of its namespace, so
that `reboot` kills all of them and nothing else. All boards of a network know one client key.

What it does NOT do: separate users, process spaces or (unless asked) disks; a board's files are a HOME.
"""

from __future__ import annotations

import contextlib
import getpass
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import sshd
from tests.network import links

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEADLINE_S = 30.0
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


@dataclass(slots=True, kw_only=True)
class Board:
    """One board of a network; connect to `host`:`port` as `user` with `client_key`."""

    folder: Path
    link: links.Link
    client_key: Path
    home: Path
    bin: Path
    host_key: Path
    port: int = 22
    user: str = field(default_factory=getpass.getuser)
    #: What its shells have besides HOME and PATH; takes effect at the next start.
    environment: dict[str, str] = field(default_factory=dict)
    #: More lines of sshd_config, such as a ForceCommand; they take effect at the next start.
    options: list[str] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The board's address."""
        return self.link.address

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, `SHA256:…`, as ssh-keygen shows it."""
        return links.run("ssh-keygen", "-l", "-f", f"{self.host_key}.pub").split()[1]

    @property
    def log(self) -> str:
        """What sshd wrote so far."""
        return (self.folder / "sshd.log").read_text(errors="replace")

    def start(self) -> None:
        """Turn the board's sshd on, and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Turn the board's sshd on."""
        (self.folder / "sshd_config").write_text(self._config())
        with (self.folder / "sshd.log").open("ab") as log:
            self._process = subprocess.Popen(
                self.link.command(sshd.binary(), "-D", "-e", "-f", str(self.folder / "sshd_config")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until sshd listens: seen in the board's own namespace, whatever its link is like."""
        deadline = time.monotonic() + _DEADLINE_S
        while "Server listening" not in self.log:
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"sshd did not start: {self.log}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Turn sshd off; sessions that are open, and what runs on the board, go on."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_DEADLINE_S)
            self._process = None
            (self.folder / "sshd.log").unlink()

    def power_off(self) -> None:
        """Kill everything that runs on the board."""
        self.link.kill()
        if self._process is not None:
            self._process.wait(_DEADLINE_S)
            self._process = None
            (self.folder / "sshd.log").unlink()

    def reboot(self) -> None:
        """Kill everything that runs on the board, and start its sshd again."""
        self.power_off()
        self.start()

    def change_host_key(self) -> None:
        """Become another machine at the same address."""
        self.stop()
        sshd.generate_key(self.host_key)
        self.start()

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command as the board itself would when it comes up; it ends with the board."""
        environment = {"HOME": str(self.home), "PATH": f"{self.bin}:{_SYSTEM_PATH}", **self.environment}
        return subprocess.Popen(
            self.link.command(*command),
            env=environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _config(self) -> str:
        environment = {"HOME": str(self.home), "PATH": f"{self.bin}:{_SYSTEM_PATH}", **self.environment}
        lines = [
            f"ListenAddress {self.host}:{self.port}",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.client_key}.pub",
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in environment.items()),
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "UseDNS no",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PrintMotd no",
            "MaxStartups 200",
            "Subsystem sftp internal-sftp",
            *self.options,
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Boards, and the links to them."""

    boards: tuple[Board, ...]

    def shape(
        self, index: int, *, rate_bit: float | None = None, loss: float = 0.0, reset_after_bytes: int | None = None
    ) -> None:
        """Make one board's link so, each way; what is not named is perfect.

        `rate_bit` is in bit/s, `loss` a share of the packets from 0 to 1, and every connection is reset that has
        carried more than `reset_after_bytes` to the board.
        """
        link = self.boards[index].link
        link.limit_rate(rate_bit)
        link.break_packets(loss=loss, reset_after_bytes=reset_after_bytes)


@contextlib.contextmanager
def boards(folder: Path, *, count: int, disk_bytes: int | None = None) -> Iterator[Network]:
    """Run so many boards below `folder` (its path must hold no spaces) until the context ends.

    With `disk_bytes`, each HOME is a disk of its own of that size.
    """
    sshd.binary()
    Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        made_links = stack.enter_context(links.links(count))
        folder.mkdir(parents=True, exist_ok=True)
        client_key = sshd.generate_key(folder / "client_key")
        made = tuple(_make(folder / f"board-{link.index}", link, client_key) for link in made_links)
        if disk_bytes is not None:
            for board in made:
                links.run("mount", "-t", "tmpfs", "-o", f"size={disk_bytes}", "tmpfs", str(board.home))
                stack.callback(links.run, "umount", "--lazy", str(board.home))
        stack.callback(_turn_off, made)
        for board in made:
            board.launch()
        for board in made:
            board.wait()
        yield Network(boards=made)


def _turn_off(made: tuple[Board, ...]) -> None:
    for board in made:
        board.power_off()


def _make(folder: Path, link: links.Link, client_key: Path) -> Board:
    home, programs = folder / "home", folder / "bin"
    home.mkdir(parents=True)
    programs.mkdir()
    (programs / "python3").symlink_to(sshd.base_interpreter())
    return Board(
        folder=folder,
        link=link,
        client_key=client_key,
        home=home,
        bin=programs,
        host_key=sshd.generate_key(folder / "host_key"),
    )
