"""A real systemd as process 1 of namespaces of its own: a board that boots, for tests that must not believe a fake.

It sees this machine's files, but has /run, units and /var/lib of its own, and the last two stay over a reboot; the
network is shared. None of this machine's units are loaded: they would start its services and set its kernel.

What it does NOT do: devices, journald, users' sessions, a boot loader.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.brokers import until

if TYPE_CHECKING:
    from collections.abc import Iterator

_SYSTEMD = Path("/lib/systemd/systemd")
_CGROUPS = Path("/sys/fs/cgroup/systemd")
_TARGETS = (
    "basic sysinit multi-user network-online network shutdown umount final timers sockets paths slices local-fs"
    " remote-fs swap rescue emergency default halt poweroff reboot exit"
)
_BOOT = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mount --bind "$1/lib" /var/lib
mount --bind "$1/units" /etc/systemd/system
mount -t tmpfs tmpfs /usr/lib/systemd/system
mount -t tmpfs tmpfs /usr/lib/systemd/system-generators
for name in $2; do
    printf '[Unit]\\nDescription=%s\\nDefaultDependencies=no\\n' "$name" >"/usr/lib/systemd/system/$name.target"
done
export container=tests
exec "$3" --system --unit=multi-user.target --log-target=console --show-status=no
"""


@dataclass(kw_only=True)
class Booted:
    """A board that is up; its process 1 is `pid` of this machine."""

    folder: Path
    pid: int
    _process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        """The agent's home, seen from here."""
        return self.folder / "lib" / "tflotilla"

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with that is to run on the board."""
        return ("nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", "-C", "--")

    def systemctl(self, *arguments: str) -> str:
        """Ask the board's systemd."""
        done = subprocess.run([*self.inside, "systemctl", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def pull_the_plug(self) -> None:
        """Kill all of it at once."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._process.wait(30)
        # A group with processes can't be removed, and theirs end a moment after they were killed.
        until(lambda: _emptied(self.folder), "the board's control groups to be empty")


def boot(folder: Path) -> Booted:
    """Boot a board whose home and units lie below `folder`, anew or again; skip the test where that can't be."""
    if os.geteuid() != 0 or not _SYSTEMD.exists() or shutil.which("unshare") is None or not _CGROUPS.is_dir():
        pytest.skip("booting a systemd in namespaces needs root, systemd, util-linux and its control groups")
    for name in ("lib", "units"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    group = _group(folder)
    group.mkdir(exist_ok=True)
    log = (folder / "systemd.log").open("ab")
    # Into the group first, so that the namespace's root of control groups is that.
    script = 'echo $$ >"$4/cgroup.procs"; exec unshare -m -p -f -u -i -C --mount-proc --kill-child '
    script += 'sh -c "$0" boot "$1" "$2" "$3"'
    process = subprocess.Popen(
        ["sh", "-c", script, _BOOT, str(folder), _TARGETS, str(_SYSTEMD), str(group)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    log.close()
    found: list[int] = []

    def up() -> bool:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        with contextlib.suppress(OSError, IndexError):
            found[:] = [int(children.read_text().split()[0])]
            board = Booted(folder=folder, pid=found[0], _process=process)
            return board.systemctl("is-active", "multi-user.target") == "active"
        return process.poll() is not None

    until(up, "systemd to boot")
    if process.poll() is not None:
        pytest.skip(f"systemd boots in no namespace here: {(folder / 'systemd.log').read_text()[-200:]}")
    return Booted(folder=folder, pid=found[0], _process=process)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[list[Booted]]:
    """Boot a board; the list's last is the one that is up, and the test adds those it boots again."""
    boards = [boot(folder)]
    try:
        yield boards
    finally:
        boards[-1].pull_the_plug()


def _group(folder: Path) -> Path:
    return _CGROUPS / f"tflotilla-{os.getpid()}-{folder.name}"


def _emptied(folder: Path) -> bool:
    group = _group(folder)
    for each in sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True):
        with contextlib.suppress(OSError):
            each.rmdir()
    with contextlib.suppress(OSError):
        group.rmdir()
    return not group.exists()
