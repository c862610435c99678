"""An emulated ARM board: a Debian bookworm of its own, network, process and mount namespaces, sshd on port 22 and cron.

    with boards.installed(tmp_path / "board", boards.ARM64) as board:
        board.start()
        board.host, board.client_key, board.fingerprint   # log in as root, or as pi
        board.power_off(); board.start()                  # what was written is still there

The Debian is shared and read-only (`tools/arm_root.sh` makes it, once); what a board writes lies over it. Its processes
live and die with its namespace, so `power_off` is a power cut to all of them and to nothing else.

What it does NOT do: systemd (no init runs under qemu-user), speed (everything takes 20 to 40 times as long), and power
cuts of disks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import sshd
from tests.network import links

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT_TOOL = Path(__file__).resolve().parents[2] / "tools" / "arm_root.sh"
_CANNOT = 77
_DEADLINE_S = 120.0
#: User and group of pi, the first that Debian gives.
_PI = 1000
#: What the board's first process does. $1 is the board's folder, $2 the Debian below it, $3 its name.
_BOOT = """\
set -eu
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
hostname "$3"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755,nosuid tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=755,nosuid tmpfs dev
mkdir -p dev/pts dev/shm run/sshd run/lock
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
mknod -m 666 dev/null c 1 3 && mknod -m 666 dev/zero c 1 5 && mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8 && mknod -m 666 dev/urandom c 1 9 && mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx && ln -s /proc/self/fd dev/fd
chroot . /usr/sbin/cron
chroot . /usr/sbin/sshd -D -e -p 22 &
# The first process adopts what loses its parent, so it is one that waits for whatever ends.
while kill -0 $! 2>/dev/null; do wait; done
"""
#: What a board inherits is what its init gives it, and nothing of the person who runs the tests.
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """One architecture, by Debian's name, and as a board of it calls itself."""

    debian: str
    machine: str

    def __str__(self) -> str:
        """For the names of tests."""
        return self.debian


ARM64 = Architecture(debian="arm64", machine="aarch64")
ARMHF = Architecture(debian="armhf", machine="armv7l")


@dataclass(slots=True, kw_only=True)
class Board:
    """A board that is on or off; connect to `host` port 22 with `client_key`, as `root` or as `pi`."""

    folder: Path
    debian: Path
    name: str
    link: links.Link
    client_key: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """The board's address."""
        return self.link.address

    @property
    def gateway(self) -> str:
        """Our end of the cable: where the board finds a broker."""
        return self.link.gateway

    @property
    def files(self) -> Path:
        """What the board wrote, from its root folder on; the Debian below is not seen here."""
        return self.folder / "upper"

    @property
    def fingerprint(self) -> str:
        """The host key's fingerprint, `SHA256:…`, as ssh-keygen shows it."""
        return links.run("ssh-keygen", "-l", "-f", str(self.files / "etc/ssh/ssh_host_ed25519_key.pub")).split()[1]

    @property
    def log(self) -> str:
        """What the board's console showed."""
        return (self.folder / "console").read_text(errors="replace")

    def start(self) -> None:
        """Turn the board on, and wait until its sshd greets."""
        with (self.folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [
                    # Whoever runs the tests may be killed: the board goes with them.
                    *("setpriv", "--pdeathsig", "KILL"),
                    *self.link.command("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
                    *("sh", "-c", _BOOT, "sh", str(self.folder), str(self.debian), self.name),
                ],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + _DEADLINE_S
        while not self._greets():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.name} does not come up: {self.log[-1000:]}")
            time.sleep(0.05)

    def power_off(self) -> None:
        """Cut the power: whatever runs there ends at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_DEADLINE_S)
            self._process = None
        # Its first process ends with the one above, and all others with it: nothing is there when this returns.
        self.link.kill()

    def put(self, source: Path, target: str) -> None:
        """Copy a folder to a path of the board, readable by everybody; only while the board is off."""
        shutil.copytree(source, self.files / target.lstrip("/"))

    def _greets(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, 22), 10) as connection:
            return connection.recv(4) == b"SSH-"
        return False


def debian(architecture: Architecture) -> Path:
    """Return the folder of the architecture's Debian, built when it is not there; or skip the calling test."""
    done = subprocess.run(["sh", str(ROOT_TOOL), architecture.debian], capture_output=True, text=True, check=False)
    if done.returncode == _CANNOT:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    if done.returncode != 0:
        pytest.fail(f"no Debian for {architecture}: {done.stderr[-1000:]}")
    return Path(done.stdout.strip())


@contextlib.contextmanager
def installed(folder: Path, architecture: Architecture) -> Iterator[Board]:
    """Have a board that is still off, until the context ends; `folder` is made."""
    below = debian(architecture)
    with links.links(1) as (link,):
        folder.mkdir(parents=True)
        client_key = sshd.generate_key(folder / "client_key")
        board = Board(folder=folder, debian=below, name=f"{architecture}-board", link=link, client_key=client_key)
        for name in ("upper", "work", "root"):
            (folder / name).mkdir()
        _personalize(board)
        try:
            yield board
        finally:
            board.power_off()


def _personalize(board: Board) -> None:
    """Lay over the Debian what differs between boards: a host key, and who may log in."""
    public = board.client_key.with_suffix(".pub").read_text()
    ssh = board.files / "etc/ssh"
    ssh.mkdir(parents=True)
    sshd.generate_key(ssh / "ssh_host_ed25519_key")
    for home, owner in (("root", 0), ("home/pi", _PI)):
        folder = board.files / home / ".ssh"
        folder.mkdir(mode=0o700, parents=True)
        (folder / "authorized_keys").write_text(public)
        for path in (folder.parent, folder, folder / "authorized_keys"):
            os.chown(path, owner, owner)
    # What lies above hides the mode of what lies below.
    (board.files / "root").chmod(0o700)
